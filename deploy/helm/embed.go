// Package helm holds the chart, so that a program can install it without a registry.
package helm

import "embed"

// Chart is the chart's folder: its root holds the folder zonewise.
//
//go:embed all:zonewise
var Chart embed.FS
