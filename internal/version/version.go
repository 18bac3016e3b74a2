// Package version tells which build this is.
package version

import "runtime"

// Version is stamped by the linker:
//
//	go build -ldflags "-X github.com/zonewise/zonewise/internal/version.Version=v0.1.0"
var Version = "v0.0.0-dev"

// Info is what `zonewise version -o json` prints.
type Info struct {
	Schema   string `json:"schema"`
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// Get describes the running executable.
func Get() Info {
	return Info{
		Schema:   "zonewise.version/v1",
		Version:  Version,
		Go:       runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
}

// UserAgent names a part of Zonewise to the API server: "zonewise-agent/v0.1.0".
func UserAgent(part string) string { return "zonewise-" + part + "/" + Version }
