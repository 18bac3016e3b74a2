package house

// rooms think in their own folder and do in their sub-folders. Each is internal/NAME.
var rooms = []string{"hints", "meter", "route", "service", "simulate", "vpc"}

// thinking are sub-folders of rooms that are as pure as the rooms, and why they are not in these.
var thinking = map[string]string{
	"internal/service/affinity": "what is between the two paths is no part of the plan that both carry out",
}

// corridors are the other folders of internal: what the rooms share, and what puts them together.
var corridors = map[string]string{
	"agent":      "wiring of a node",
	"cli":        "commands",
	"controller": "wiring of the cluster side",
	"golden":     "texts held against files, for tests",
	"house":      "these tests",
	"kernel":     "doors to Linux",
	"loop":       "the one runner",
	"model":      "the nouns",
	"outlook":    "all that can be said of a Service: puts route, hints and upstream's verdict together",
	"reflect":    "facts into tables",
	"state":      "tables",
	"version":    "the stamp of the build",
}

// kubernetes is where Kubernetes types may be known, besides every folder named kube.
var kubernetes = map[string]string{
	"api":                 "defines our own objects, which are Kubernetes objects",
	"deploy":              "carries the chart",
	"internal/agent":      "makes the client that reflect and kube folders use",
	"internal/cli":        "speaks to the API server for the user",
	"internal/controller": "makes the client, and leads by a Lease",
	"internal/reflect":    "turns Kubernetes objects into tables: that is its work",
	"test":                "watches the cluster beside the user of a story",
}

// doors are the driver libraries that a folder outside internal/kernel may use, and why.
var doors = map[string]map[string]string{
	"internal/meter/bpf": {
		"github.com/cilium/ebpf":      "programs come with the room that they think for, and the library loads them",
		"github.com/cilium/ebpf/link": "hooks belong to those programs",
		"golang.org/x/sys/unix":       "numbers of families in what programs write, and the clock that they use",
	},
	"internal/service/bpf": {
		"github.com/cilium/ebpf":      "programs come with the room that they think for, and the library loads them",
		"github.com/cilium/ebpf/link": "hooks belong to those programs",
	},
	"internal/service/nft": {
		"github.com/google/nftables/expr": "a rule is a list of its expressions, which the door takes as they are",
		"golang.org/x/sys/unix":           "numbers of protocols and hooks inside those expressions",
	},
	"internal/vpc/files": {
		"golang.org/x/sys/unix": "locks the files of leases and of the pool",
	},
	"internal/vpc/link": {
		"github.com/google/nftables/expr": "a rule is a list of its expressions, which the door takes as they are",
		"golang.org/x/sys/unix":           "numbers of kinds of addresses inside those expressions",
	},
}

// drivers are the libraries that reach into Linux.
var drivers = []string{
	"github.com/cilium/ebpf",
	"github.com/google/nftables",
	"github.com/mdlayher/netlink",
	"github.com/ti-mo/conntrack",
	"github.com/vishvananda/netlink",
	"github.com/vishvananda/netns",
	"golang.org/x/sys/unix",
	"sigs.k8s.io/knftables",
}

// worldly are the packages of the standard library that touch the world, with all below them.
var worldly = []string{"io/ioutil", "log", "net", "os", "plugin", "runtime/debug", "syscall"}

// harmless are packages below worldly ones that only compute.
var harmless = []string{"net/netip", "net/url"}

// clocks are the functions of package time that ask what time it is, or wait.
var clocks = []string{"After", "AfterFunc", "NewTicker", "NewTimer", "Now", "Since", "Sleep", "Tick", "Until"}

// Sizes above which nobody reads on: of a file and of a function, in lines.
const (
	maxFile     = 800
	maxFunction = 120
)
