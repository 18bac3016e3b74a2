package images

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"regexp"

	"github.com/zonewise/zonewise/lab/images/debian"
	"github.com/zonewise/zonewise/lab/images/layer"
)

// toolPackages are what the tools image must have; what they need comes with them.
var toolPackages = []string{
	"zsh", "bash", "dash", "coreutils", "findutils", "grep", "sed", "mawk", "procps", "debianutils", "base-files", "libc-bin",
	"curl", "jq", "bind9-dnsutils", "netcat-openbsd", "iputils-ping", "iproute2", "tcpdump", "iperf3",
	"nftables", "conntrack", "strace",
}

// notNeeded are packages that others depend on for their installation scripts
// alone, which never run here.
var notNeeded = regexp.MustCompile(`^(perl|perl-.*|libperl.*|.*-perl|debconf|cdebconf|dpkg|usrmerge|usr-is-merged|adduser|passwd|tar|` +
	`init-system-helpers|libpam-.*|libpam0g.*|libsemanage.*|libsepol.*|libgdbm.*|libdb5.*|gcc-.*-base|libsasl2-modules-db|install-info|sensible-utils)$`)

// notShipped are files that nobody reads in a container.
var notShipped = regexp.MustCompile(`^(usr/share/(doc|doc-base|man|info|locale|i18n|lintian|linda|bug|menu|perl.*|bash-completion|apport|` +
	`pixmaps|icons|applications|gcc|gdb|common-licenses|zsh/help|zsh/functions/(Completion|Calendar|Newuser|TCP|MIME))|` +
	`usr/lib/[^/]*/(gconv|perl.*|audit)|usr/lib/(systemd|udev|tmpfiles.d|sysusers.d|init)|` +
	`etc/(init.d|default|logrotate.d|cron.*|systemd|apparmor.d|dpkg|pam.d|X11|update-motd.d)|` +
	`usr/sbin/arpd|var/(cache|lib/dpkg|backups)/.*)(/|$)`)

// alternatives are the names that installation scripts would link, where the package
// itself does not bring them, and what they link to in the same directory.
var alternatives = map[string]string{
	"usr/bin/sh":     "dash",
	"usr/bin/awk":    "mawk",
	"usr/bin/nc":     "nc.openbsd",
	"usr/bin/netcat": "nc.openbsd",
	"usr/bin/which":  "which.debianutils",
	"usr/bin/zsh":    "zsh5",
}

// toolFiles are what installation scripts would write. tcpdump does its work as a user of that name. An empty
// .zshrc keeps zsh from asking its first-run questions.
var toolFiles = layer.Tree{
	"etc/passwd":        layer.Regular(0o644, []byte("root:x:0:0:root:/root:/bin/zsh\ntcpdump:x:100:100::/nonexistent:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/:/bin/sh\n")),
	"etc/group":         layer.Regular(0o644, []byte("root:x:0:\ntcpdump:x:100:\nnogroup:x:65534:\n")),
	"etc/nsswitch.conf": layer.Regular(0o644, []byte("passwd: files\ngroup: files\nhosts: files dns\n")),
	"root":              layer.Dir(0o700),
	"root/.zshrc":       layer.Regular(0o644, nil),
	"tmp":               layer.Dir(0o1777),
	"var/tmp":           layer.Dir(0o1777),
	"proc":              layer.Dir(0o755),
	"sys":               layer.Dir(0o755),
	"dev":               layer.Dir(0o755),
	"run":               layer.Dir(0o755),
}

// packaged is the tools image's source.
type packaged struct {
	apt      *debian.Apt
	packages []debian.Package // set by inputs
}

func tools(dir string) source { return &packaged{apt: &debian.Apt{Dir: dir}} }

func (p *packaged) inputs(ctx context.Context) (string, error) {
	var err error
	if p.packages, err = p.apt.Resolve(ctx, toolPackages, notNeeded); err != nil {
		return "", fmt.Errorf("%w: %w", errInputsUnknown, err)
	}
	all, err := json.Marshal([]any{p.packages, notShipped.String(), alternatives, toolFiles})
	return string(all), err
}

func (p *packaged) tree(ctx context.Context) (layer.Tree, error) {
	if err := p.apt.Fetch(ctx, p.packages); err != nil {
		return nil, err
	}
	tree, err := p.apt.Rootfs(ctx, p.packages, notShipped)
	if err != nil {
		return nil, err
	}
	for name, f := range toolFiles {
		tree[name] = f
	}
	return tree, link(tree)
}

func link(tree layer.Tree) error {
	for name, target := range alternatives {
		if _, ok := tree[name]; ok {
			continue
		}
		if _, ok := tree[path.Join(path.Dir(name), target)]; !ok {
			return fmt.Errorf("%s: no package brings %s", name, target)
		}
		tree[name] = layer.Symlink(target)
	}
	return nil
}
