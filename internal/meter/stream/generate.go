package stream

//go:generate ../../../bin/protoc meter.proto
