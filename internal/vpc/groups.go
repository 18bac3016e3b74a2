package vpc

import (
	"fmt"
	"slices"
	"time"
)

// follow gives an interface the security groups with which it would be made now. Somebody who changes those of the
// primary means the whole node, and upstream does the same. Where the cloud refused, later says when it is asked again.
func (s *survey) follow() (a Action, later time.Time) {
	for _, p := range s.ports {
		want := s.groups(p)
		if len(want) == 0 || slices.Equal(want, sorted(p.SecurityGroups)) {
			continue
		}
		if r, no := s.Memory.refusal(groupsOf(p.ID), false, s.Now); no {
			if later.IsZero() || r.Until.Before(later) {
				later = r.Until
			}
			continue
		}
		return Action{Verb: SetSecurityGroups, Interface: p.ID, SecurityGroups: want}, time.Time{}
	}
	return Action{}, later
}

// groups are those that an interface is to have; none: nobody knows, or it is not ours to say.
func (s *survey) groups(p *port) []string {
	if p.Primary || p.Draining {
		return nil
	}
	k := slices.IndexFunc(s.Subnets, func(x Subnet) bool { return x.ID == p.SubnetID })
	switch {
	case k >= 0 && len(s.Subnets[k].SecurityGroups) > 0:
		return sorted(s.Subnets[k].SecurityGroups)
	case k < 0 && s.Targets.CustomNetworking: // an earlier ENIConfig's, or that of the node is not known yet
		return nil
	}
	for _, o := range s.ports {
		if o.Primary {
			return sorted(o.SecurityGroups)
		}
	}
	return nil
}

func sorted(groups []string) []string { return slices.Sorted(slices.Values(groups)) }

// groupsOf is the place of a refusal to change an interface's security groups: nothing else waits for that.
func groupsOf(id string) string { return "security groups of " + id }

// lag tells of interfaces whose security groups the cloud does not let us change.
func (s *survey) lag() (w []string) {
	for _, p := range s.ports {
		if r, no := s.Memory.refusal(groupsOf(p.ID), false, s.Now); no {
			w = append(w, fmt.Sprintf("%s are not those that it is to have: %s; let the role of zonewise-cni do ec2:ModifyNetworkInterfaceAttribute, or set them",
				r.Place, r.Failure))
		}
	}
	return w
}
