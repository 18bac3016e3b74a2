// Package debian makes a root file system out of Debian or Ubuntu packages,
// with the host's package sources and without installing anything: apt works out
// the packages against an empty list of installed ones, dpkg-deb reads them, and
// their files are merged in memory.
package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Package is one package file of a closure.
type Package struct {
	Name    string
	Version string
	File    string // as apt names it: name_version_arch.deb, ':' escaped
}

// Apt runs apt-get on a private state in Dir. It needs no root.
type Apt struct {
	Dir     string // kept between runs: package files, and lists where the host's do not do
	private bool   // use lists of our own instead of the host's
}

// Resolve lists every package that the wanted ones need, themselves included,
// sorted by name, without those whose name skip matches: what only a package's
// installation scripts call.
func (a *Apt) Resolve(ctx context.Context, wanted []string, skip *regexp.Regexp) ([]Package, error) {
	packages, err := a.resolve(ctx, wanted)
	if err != nil && !a.private && ctx.Err() == nil {
		// The host has no package lists, or too old ones: fetch some of our own.
		if err := a.update(ctx); err != nil {
			return nil, err
		}
		packages, err = a.resolve(ctx, wanted)
	}
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(packages, func(p Package) bool { return skip.MatchString(p.Name) }), nil
}

func (a *Apt) resolve(ctx context.Context, wanted []string) ([]Package, error) {
	out, err := a.get(ctx, append([]string{"install", "--no-install-recommends", "--print-uris", "-qq", "-y"}, wanted...)...)
	if err != nil {
		return nil, err
	}
	return parseURIs(string(out))
}

// Fetch brings the package files into Dir/archives, those that are not there yet.
func (a *Apt) Fetch(ctx context.Context, packages []Package) error {
	var missing []string
	for _, p := range packages {
		if _, err := os.Stat(a.Path(p)); errors.Is(err, os.ErrNotExist) {
			missing = append(missing, p.Name+"="+p.Version)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	_, err := a.get(ctx, append([]string{"download", "-qq"}, missing...)...)
	return err
}

// Path is where Fetch leaves the package's file.
func (a *Apt) Path(p Package) string { return filepath.Join(a.archives(), p.File) }

// update fetches package lists of our own, from the host's sources.
func (a *Apt) update(ctx context.Context) error {
	a.private = true
	_, err := a.get(ctx, "update", "-qq")
	return err
}

func (a *Apt) archives() string { return filepath.Join(a.Dir, "archives") }

// get runs apt-get in the archive directory, where "download" leaves its files.
func (a *Apt) get(ctx context.Context, args ...string) ([]byte, error) {
	config, err := a.configure()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-c", config}, args...)...)
	cmd.Dir = a.archives()
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var out, trouble bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &trouble
	err = cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, errors.New("apt-get: not found: the tools image is made of Debian or Ubuntu packages")
	}
	if err != nil {
		return nil, fmt.Errorf("apt-get %s: %w: %s", args[0], err, lastLine(trouble.String()))
	}
	return out.Bytes(), nil
}

// configure writes apt's private configuration. It is read after the host's, so
// it can clear the host's hooks: they act on the host.
func (a *Apt) configure() (string, error) {
	dir, err := filepath.Abs(a.Dir)
	if err != nil {
		return "", err
	}
	a.Dir = dir
	for _, d := range []string{"archives", "cache/archives/partial", "state/lists/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return "", err
		}
	}
	status := filepath.Join(dir, "status")
	if err := os.WriteFile(status, nil, 0o644); err != nil {
		return "", err
	}
	lines := []string{
		"#clear DPkg::Pre-Install-Pkgs;", "#clear DPkg::Post-Invoke;",
		"#clear APT::Update::Pre-Invoke;", "#clear APT::Update::Post-Invoke;", "#clear APT::Update::Post-Invoke-Success;",
		fmt.Sprintf("Dir::State::status %q;", status),
		fmt.Sprintf("Dir::Cache %q;", filepath.Join(dir, "cache")),
		`APT::Sandbox::User "root";`, // or nobody: "_apt" could not enter the private directories
		`Debug::NoLocking "true";`, `Acquire::Languages "none";`, `Acquire::Retries "3";`,
	}
	if a.private {
		lines = append(lines, fmt.Sprintf("Dir::State::lists %q;", filepath.Join(dir, "state/lists")))
	}
	config := filepath.Join(dir, "apt.conf")
	return config, os.WriteFile(config, []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}

// parseURIs reads what --print-uris prints, a line a package:
// 'http://…/jq_1.6-2_amd64.deb' jq_1.6-2_amd64.deb 63680 MD5Sum:…
func parseURIs(out string) ([]Package, error) {
	var packages []Package
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 3 || !strings.HasPrefix(fields[0], "'") {
			continue
		}
		file := path.Base(fields[1])
		parts := strings.Split(strings.TrimSuffix(file, ".deb"), "_")
		if len(parts) != 3 {
			return nil, fmt.Errorf("apt-get: package file %q: want name_version_arch.deb", file)
		}
		version, err := url.PathUnescape(parts[1])
		if err != nil {
			return nil, fmt.Errorf("apt-get: package file %q: %w", file, err)
		}
		packages = append(packages, Package{Name: parts[0], Version: version, File: file})
	}
	if len(packages) == 0 {
		return nil, errors.New("apt-get: no package to fetch in its answer")
	}
	slices.SortFunc(packages, func(a, b Package) int { return strings.Compare(a.File, b.File) })
	return packages, nil
}

// lastLine is apt's own summary of what went wrong.
func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
