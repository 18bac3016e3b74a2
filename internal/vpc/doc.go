// Package vpc decides which address a pod gets, and what a node asks of the cloud for its pods. It is
// pure: what the cloud has given, leases and the clock come in as values, and new leases, or one
// action and its reason, go out.
//
// A Pool is what Assign gives addresses from, be it ranges of a configuration or a Supply of
// interfaces. Decide says what would make the Supply what the Targets ask for.
//
// link wires pods and plumbs the node, files keeps what plugin and daemon both know, cni answers the
// runtime, ec2 does what was decided.
package vpc
