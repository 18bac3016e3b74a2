package wire

import "github.com/zonewise/zonewise/lab/region/ec2"

// identity is STS's answer to who one is.
type identity struct {
	XMLNS     string `xml:"xmlns,attr"`
	ARN       string `xml:"GetCallerIdentityResult>Arn"`
	User      string `xml:"GetCallerIdentityResult>UserId"`
	Account   string `xml:"GetCallerIdentityResult>Account"`
	RequestID string `xml:"ResponseMetadata>RequestId"`
}

func (i *identity) stamp(namespace, id string) { i.XMLNS, i.RequestID = namespace, id }

// sts answers the one question that clients ask of STS here.
func (s *Server) sts(who caller, q *query) (any, error) {
	if action := q.text("Action"); action != "GetCallerIdentity" {
		return nil, fault("InvalidAction", "Could not find operation %s for version %s", action, q.text("Version"))
	}
	out := &identity{Account: ec2.Account, User: who.Key, ARN: "arn:aws:iam::" + ec2.Account + ":user/admin"}
	if who.role {
		out.ARN = "arn:aws:sts::" + ec2.Account + ":assumed-role/" + ec2.RoleName + "/instance"
	}
	return out, nil
}
