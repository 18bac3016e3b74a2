// Package conformance proves on the real kernel that a node behaves as a node with kube-proxy does:
// docs/conformance.md names every behaviour and the test that shows it. There is nothing but tests.
package conformance
