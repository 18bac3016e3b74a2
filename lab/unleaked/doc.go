// Package unleaked shows that no address of the cloud is lost, given twice or kept for nobody, whenever
// the plugin and the daemon that gets addresses are killed. There is nothing but tests: the real
// programs in a node of the real fabric, with the region's own API. Their long form has a thousand pods:
//
//	go test -tags kernel ./lab/unleaked -pods 1000 -full
package unleaked
