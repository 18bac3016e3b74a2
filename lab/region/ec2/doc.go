// Package ec2 keeps the records of the region: the VPC, its subnets, instances, network interfaces and
// who has which address, with the limits and errors that EC2 has. It touches no kernel: Delivery says
// what the network must do, and the fabric makes it so. Package wire serves the records as EC2's API,
// package imds as the metadata that each instance sees.
package ec2
