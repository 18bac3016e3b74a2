package ec2

import "fmt"

// Error is an answer of EC2 that is not the one hoped for, with EC2's own code. The texts are what
// clients look into at most for the identifier.
type Error struct{ Code, Message string }

func (e *Error) Error() string { return e.Code + ": " + e.Message }

func refuse(code, format string, args ...any) error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Codes that more than one place answers with.
const (
	codeValue       = "InvalidParameterValue"
	codeCombination = "InvalidParameterCombination"
	codeInUse       = "InvalidIPAddress.InUse"
	codeState       = "IncorrectState"
	codeDependency  = "DependencyViolation"
)

func (r *Records) subnet(id string) (*Subnet, error) {
	if s, ok := r.Subnets[id]; ok {
		return s, nil
	}
	return nil, refuse("InvalidSubnetID.NotFound", "The subnet ID '%s' does not exist", id)
}

func (r *Records) instance(id string) (*Instance, error) {
	if i, ok := r.Instances[id]; ok {
		return i, nil
	}
	return nil, refuse("InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", id)
}

func (r *Records) interfaceOf(id string) (*Interface, error) {
	if i, ok := r.Interfaces[id]; ok {
		return i, nil
	}
	return nil, refuse("InvalidNetworkInterfaceID.NotFound", "The networkInterface ID '%s' does not exist", id)
}

func (r *Records) group(id string) (*SecurityGroup, error) {
	if g, ok := r.Groups[id]; ok {
		return g, nil
	}
	return nil, refuse("InvalidGroup.NotFound", "The security group '%s' does not exist", id)
}
