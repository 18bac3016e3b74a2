package vpc

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Family is which addresses pods have.
type Family string

// The families.
const (
	IPv4 Family = "ipv4"
	IPv6 Family = "ipv6" // behind one /80 of the primary interface
	Dual Family = "dual" // behind each interface's /80, the IPv4 address of the pod
)

// Targets is how much a node keeps ready for pods to come, by the names that upstream's users know.
type Targets struct {
	WarmENI          int           // WARM_ENI_TARGET: interfaces' worth of free addresses
	WarmIP           int           // WARM_IP_TARGET: free addresses; 0: not set
	MinimumIP        int           // MINIMUM_IP_TARGET: addresses in all; 0: not set
	WarmPrefix       int           // WARM_PREFIX_TARGET: prefixes' worth of free addresses
	Prefixes         bool          // ENABLE_PREFIX_DELEGATION
	CustomNetworking bool          // AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG: the primary gives no addresses
	MaxENI           int           // MAX_ENI; 0: as the instance type has
	Family           Family        // ENABLE_IPv4, ENABLE_IPv6
	Cooldown         time.Duration // IP_COOLDOWN_PERIOD, in seconds
}

// DefaultTargets are what holds when nobody says otherwise.
func DefaultTargets() Targets {
	return Targets{WarmENI: 1, WarmPrefix: 1, Family: IPv4, Cooldown: 30 * time.Second}
}

// ParseTargets reads the targets by the names of upstream's environment variables; get returns "" for
// what is not set. The notes are for the user: what has no effect, and why.
func ParseTargets(get func(name string) string) (t Targets, notes []string, err error) {
	t = DefaultTargets()
	var errs []error
	number := func(name string, into *int) {
		if s := get(name); s != "" {
			n, err := strconv.Atoi(s)
			if err != nil || n < 0 || n > MaxPool {
				errs = append(errs, fmt.Errorf("%s: %q is not a number from 0 to %d", name, s, MaxPool))
			}
			*into = n
		}
	}
	flag := func(name string, into *bool) {
		if s := get(name); s != "" {
			b, err := strconv.ParseBool(s)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %q is not true or false", name, s))
			}
			*into = b
		}
	}
	seconds, four, six := int(t.Cooldown/time.Second), true, false
	number("WARM_ENI_TARGET", &t.WarmENI)
	number("WARM_IP_TARGET", &t.WarmIP)
	number("MINIMUM_IP_TARGET", &t.MinimumIP)
	number("WARM_PREFIX_TARGET", &t.WarmPrefix)
	number("MAX_ENI", &t.MaxENI)
	number("IP_COOLDOWN_PERIOD", &seconds)
	flag("ENABLE_PREFIX_DELEGATION", &t.Prefixes)
	flag("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", &t.CustomNetworking)
	flag("ENABLE_IPv4", &four)
	flag("ENABLE_IPv6", &six)
	t.Cooldown = time.Duration(seconds) * time.Second
	switch {
	case four && six && get("ENABLE_IPv4") != "":
		t.Family = Dual
	case six: // upstream's users set this one alone
		t.Family = IPv6
	case !four:
		errs = append(errs, errors.New("ENABLE_IPv4 and ENABLE_IPv6: both false; pods need addresses of one of the two"))
	}
	if t.Family == IPv6 && t.CustomNetworking {
		errs = append(errs, errors.New("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG: not with ENABLE_IPv6 alone, since pods have the primary interface's prefix; "+
			"set ENABLE_IPv4 too, or unset one of them"))
	}
	if t.CustomNetworking && t.MaxENI == 1 {
		errs = append(errs, errors.New("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG: not with MAX_ENI=1, since the primary interface gives pods no addresses; set MAX_ENI to 2 at least"))
	}
	return t, t.notes(get), errors.Join(errs...)
}

// notes names what has no effect.
func (t Targets) notes(get func(string) string) (notes []string) {
	set := func(name string) bool { return get(name) != "" }
	note := func(name, why string) {
		if set(name) {
			notes = append(notes, name+" has no effect: "+why)
		}
	}
	switch {
	case t.Family == IPv6:
		for _, name := range []string{"WARM_ENI_TARGET", "WARM_IP_TARGET", "MINIMUM_IP_TARGET", "WARM_PREFIX_TARGET", "MAX_ENI"} {
			note(name, "with ENABLE_IPv6 one prefix is enough for every pod")
		}
	case t.byIP():
		note("WARM_ENI_TARGET", "WARM_IP_TARGET and MINIMUM_IP_TARGET go before it")
		note("WARM_PREFIX_TARGET", "WARM_IP_TARGET and MINIMUM_IP_TARGET go before it")
	case t.Prefixes:
		note("WARM_ENI_TARGET", "with ENABLE_PREFIX_DELEGATION it is WARM_PREFIX_TARGET that counts")
	default:
		note("WARM_PREFIX_TARGET", "ENABLE_PREFIX_DELEGATION is not set")
	}
	return notes
}

// byIP tells whether single addresses are counted, not interfaces or prefixes full of them.
func (t Targets) byIP() bool { return t.WarmIP > 0 || t.MinimumIP > 0 }

func (t Targets) byPrefix(l Limits) bool { return t.Prefixes && l.Prefixes && t.Family != IPv6 }

// interfaces is how many the node may have.
func (t Targets) interfaces(l Limits) int {
	if t.MaxENI > 0 {
		return min(t.MaxENI, l.Interfaces)
	}
	return l.Interfaces
}

// warm is how many addresses are to be free when no single ones are counted.
func (t Targets) warm(l Limits) int {
	if t.byPrefix(l) {
		return t.WarmPrefix * prefixSize
	}
	return t.WarmENI * l.Slots()
}

// text names the target that counts, as its user has set it.
func (t Targets) text(l Limits) string {
	switch {
	case t.WarmIP > 0 && t.MinimumIP > 0:
		return fmt.Sprintf("WARM_IP_TARGET=%d MINIMUM_IP_TARGET=%d", t.WarmIP, t.MinimumIP)
	case t.WarmIP > 0:
		return fmt.Sprintf("WARM_IP_TARGET=%d", t.WarmIP)
	case t.MinimumIP > 0:
		return fmt.Sprintf("MINIMUM_IP_TARGET=%d", t.MinimumIP)
	case t.byPrefix(l):
		return fmt.Sprintf("WARM_PREFIX_TARGET=%d", t.WarmPrefix)
	}
	return fmt.Sprintf("WARM_ENI_TARGET=%d", t.WarmENI)
}
