// Package unbroken shows that traffic through Services goes on whatever becomes of the agent: it is
// killed, stopped, replaced by a version with other tables and back, what it programmed is damaged,
// and kube-proxy takes its place and gives it back. There is nothing but tests. Their long form, of
// some minutes, has more of everything:
//
//	go test -tags kernel ./lab/unbroken -full
package unbroken
