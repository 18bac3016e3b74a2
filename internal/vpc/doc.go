// Package vpc decides which address a pod gets. It is pure: pools, leases and the clock come in
// as values, and a new set of leases goes out. link wires the pod, cni answers the runtime.
//
// Where a Pool comes from is not its business: static ranges of a configuration today, the
// secondary addresses and prefixes of elastic interfaces tomorrow. Whoever decides those makes a
// Pool, and Assign, Release and Collect stay as they are.
package vpc
