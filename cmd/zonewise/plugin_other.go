//go:build !linux

package main

func plugin() func() int { return nil }
