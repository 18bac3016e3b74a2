package view

// TrafficSchema names the form of Traffic.
const TrafficSchema = "zonewise.node-traffic/v1"

// Traffic is where the connections went that pods of one node, and the node itself, opened to
// cluster addresses. What comes in by node ports is left out: nobody knows which zone it is from.
type Traffic struct {
	Schema   string           `json:"schema"`
	Node     string           `json:"node"`
	Zone     string           `json:"zone"`
	Services []ServiceTraffic `json:"services"` // by namespace, name and family; those with a connection
}

// ServiceTraffic is one Service in one address family.
type ServiceTraffic struct {
	Namespace     string        `json:"namespace"`
	Name          string        `json:"name"`
	Family        string        `json:"family"` // IPv4 or IPv6
	EndpointZones []ZoneTraffic `json:"endpointZones"`
}

// ZoneTraffic is the endpoints of one zone. The count only grows as long as the agent lives. It is
// of what was opened after the agent was asked for the first time; endpoints that have gone stay in
// it, save what they got after it was last asked.
type ZoneTraffic struct {
	Zone        string `json:"zone"` // empty when unknown
	Connections uint64 `json:"connections"`
}
