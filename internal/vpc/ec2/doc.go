// Package ec2 is the door to the cloud: what EC2 says of this node's elastic interfaces, and the calls that change
// them. It decides nothing: vpc does, of what Observe returns, and Do carries out.
//
// EC2 is the truth, not the metadata service of the instance (IMDS), which lags behind by seconds to minutes. IMDS
// tells only what hardly ever changes: which instance this is, and the ranges of its VPC.
package ec2
