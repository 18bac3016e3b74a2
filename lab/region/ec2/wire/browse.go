package wire

import (
	"strconv"
	"strings"

	"github.com/zonewise/zonewise/lab/region/ec2"
)

// What people look at, and no client here asks for.

type checkXML struct {
	Name   string `xml:"name"`
	Status string `xml:"status"`
}

type healthXML struct {
	Status  string        `xml:"status"`
	Details set[checkXML] `xml:"details"`
}

// healthOf an instance: one that runs is well.
func healthOf(i *ec2.Instance) healthXML {
	if !i.Running() {
		return healthXML{Status: "not-applicable"}
	}
	return healthXML{"ok", set[checkXML]{[]checkXML{{"reachability", "passed"}}}}
}

func (s *Server) describeInstanceStatus(q *query) (any, error) {
	type status struct {
		ID       string        `xml:"instanceId"`
		Zone     string        `xml:"availabilityZone"`
		State    stateXML      `xml:"instanceState"`
		System   healthXML     `xml:"systemStatus"`
		Instance healthXML     `xml:"instanceStatus"`
		Events   set[struct{}] `xml:"eventsSet"`
	}
	var all []status
	for _, i := range chosen(q, "InstanceId", s.cloud.Records().Instances, missingInstance) {
		if i.Running() || q.yes("IncludeAllInstances") {
			all = append(all, status{ID: i.ID, Zone: i.Zone, State: stateOf(i), System: healthOf(i), Instance: healthOf(i)})
		}
	}
	all = selectBy(q, all, filters[status]{
		"availability-zone":      func(i status) []string { return one(i.Zone) },
		"instance-state-code":    func(i status) []string { return one(strconv.Itoa(i.State.Code)) },
		"instance-state-name":    func(i status) []string { return one(i.State.Name) },
		"instance-status.status": func(i status) []string { return one(i.Instance.Status) },
		"system-status.status":   func(i status) []string { return one(i.System.Status) },
	}, nil)
	page, next := paged(q, "InstanceId", all, func(i status) string { return i.ID })
	if err := q.err(); err != nil {
		return nil, err
	}
	return &struct {
		reply
		Statuses set[status] `xml:"instanceStatusSet"`
		Next     string      `xml:"nextToken,omitempty"`
	}{Statuses: set[status]{page}, Next: next}, nil
}

func (s *Server) describeRules(q *query) (any, error) {
	known := map[string]ruleXML{}
	for _, g := range s.cloud.Records().Groups {
		for _, r := range g.Ingress {
			known[r.ID] = ruleOf(g.ID, r)
		}
		out := everywhere
		out.ID = "sgr-" + strings.TrimPrefix(g.ID, "sg-")
		rule := ruleOf(g.ID, out)
		rule.Egress = true
		known[rule.ID] = rule
	}
	all := chosen(q, "SecurityGroupRuleId", known, func(id string) error {
		return fault("InvalidSecurityGroupRuleId.NotFound", "The security group rule ID '%s' does not exist", id)
	})
	all = selectBy(q, all, filters[ruleXML]{
		"group-id":               func(r ruleXML) []string { return one(r.Group) },
		"security-group-rule-id": func(r ruleXML) []string { return one(r.ID) },
	}, func(ruleXML) ec2.Tags { return nil })
	page, next := paged(q, "SecurityGroupRuleId", all, func(r ruleXML) string { return r.ID })
	if err := q.err(); err != nil {
		return nil, err
	}
	return &struct {
		reply
		Rules set[ruleXML] `xml:"securityGroupRuleSet"`
		Next  string       `xml:"nextToken,omitempty"`
	}{Rules: set[ruleXML]{page}, Next: next}, nil
}

func (s *Server) describeRegions(q *query) (any, error) {
	type region struct {
		Name     string `xml:"regionName"`
		Endpoint string `xml:"regionEndpoint"`
		OptIn    string `xml:"optInStatus"`
	}
	name := s.cloud.Records().Region
	all := chosen(q, "RegionName", map[string]region{name: {name, "ec2." + name + ".amazonaws.com", "opt-in-not-required"}}, func(name string) error {
		return fault(codeValue, "Invalid region provided: [%s]", name)
	})
	all = selectBy(q, all, filters[region]{
		"endpoint":      func(r region) []string { return one(r.Endpoint) },
		"opt-in-status": func(r region) []string { return one(r.OptIn) },
		"region-name":   func(r region) []string { return one(r.Name) },
	}, nil)
	if err := q.err(); err != nil {
		return nil, err
	}
	return &struct {
		reply
		Regions set[region] `xml:"regionInfo"`
	}{Regions: set[region]{all}}, nil
}
