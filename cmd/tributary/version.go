package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is the program's semantic version, which its service shows too. A release build may set it with -ldflags.
var version = "0.1.0"

// VersionCmd prints the version.
type VersionCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// build is what is known of how the program was built.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func readBuild(version string) build {
	b := build{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

func (b build) String() string {
	commit := "commit unknown"
	if b.Commit != "" {
		commit = "commit " + b.Commit[:min(12, len(b.Commit))]
	}
	if b.Modified {
		commit += ", modified"
	}
	return fmt.Sprintf("tributary %s (%s) %s %s", b.Version, commit, b.Go, b.Platform)
}

// Run prints the version.
func (c *VersionCmd) Run(app *App) error {
	b := readBuild(app.Version)
	if c.JSON {
		return json.NewEncoder(app.Stdout).Encode(b)
	}
	_, err := fmt.Fprintln(app.Stdout, b)
	return err
}
