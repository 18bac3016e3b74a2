package view

import (
	"time"

	"github.com/zonewise/zonewise/internal/vpc"
)

// AddressesSchema names the form of Addresses. Fields are only ever added to it.
const AddressesSchema = "zonewise.node/v1"

// AddressesPort is the port of the node's loopback at which the daemon tells them.
const AddressesPort = 9475

// Addresses is which addresses a node has for its pods, and what the next pod will wait for.
type Addresses struct {
	Schema       string             `json:"schema"`
	Name         string             `json:"name"`
	Zone         string             `json:"zone"`
	Instance     string             `json:"instance"` // its id
	InstanceType string             `json:"instanceType"`
	Version      string             `json:"version"`
	MaxPods      int                `json:"maxPods"` // as kubelet has it
	Pods         int                `json:"pods"`    // that have addresses
	Interfaces   []AddressInterface `json:"interfaces"`
	Next         vpc.Next           `json:"next"`
	Doing        string             `json:"doing"`             // what is asked of the cloud, or why nothing is
	Failure      string             `json:"failure,omitempty"` // what failed lately, and is tried again
	Subnets      []AddressSubnet    `json:"subnets"`
	Warnings     []string           `json:"warnings"`
	Looked       time.Time          `json:"looked,omitzero"` // when the cloud last answered
}

// AddressInterface is an elastic interface. Used, warm and cooling are addresses for pods.
type AddressInterface struct {
	ID        string `json:"id"`
	Device    string `json:"device"` // empty: it is being attached
	Index     int    `json:"index"`
	Primary   bool   `json:"primary"`
	Subnet    string `json:"subnet"`
	Address   string `json:"address"` // its own
	Slots     int    `json:"slots"`   // for addresses or prefixes
	Taken     int    `json:"taken"`   // of the slots
	Prefixes  int    `json:"prefixes"`
	Addresses int    `json:"addresses"`
	Used      int    `json:"used"`
	Warm      int    `json:"warm"`
	Cooling   int    `json:"cooling"`
	State     string `json:"state,omitempty"` // attaching, draining or foreign; empty: it is simply there
}

// AddressSubnet is a subnet that interfaces of the node may be in.
type AddressSubnet struct {
	ID      string    `json:"id"`
	CIDR    string    `json:"cidr"`
	Free    int       `json:"free"`              // addresses; less than 0: not known
	Empty   time.Time `json:"empty,omitzero"`    // when none is left, if it goes on as it does
	PerHour float64   `json:"perHour,omitempty"` // how many fewer there are each hour; of what Empty was worked out
}
