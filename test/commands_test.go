//go:build story

package test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// shellLine is a line of a story that bash shall see as it stands.
var shellLine = regexp.MustCompile(`^(!? ?)(\$|eventually \S+) (.*)$`)

// prepared returns the stories in dir with their shell lines quoted for testscript, which would
// otherwise take words, quotes and variables in its own way.
func prepared(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories in %s: %v", dir, err)
	}
	out := t.TempDir()
	for i, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		files[i] = filepath.Join(out, filepath.Base(file))
		if err := os.WriteFile(files[i], []byte(quoted(string(data))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func quoted(story string) string {
	lines := strings.Split(story, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "-- ") {
			break // files follow
		}
		if m := shellLine.FindStringSubmatch(line); m != nil {
			command := strings.Replace(m[2], "$", "sh", 1)
			lines[i] = m[1] + command + " '" + strings.ReplaceAll(m[3], "'", "''") + "'"
		}
	}
	return strings.Join(lines, "\n")
}

// sh is the command behind "$".
func sh(ts *testscript.TestScript, neg bool, args []string) {
	out, errOut, err := bash(ts, args[0])
	_, _ = ts.Stdout().Write(out)
	_, _ = ts.Stderr().Write(errOut)
	switch {
	case err != nil && !neg:
		ts.Fatalf("%v", err)
	case err == nil && neg:
		ts.Fatalf("succeeded, and should not have")
	}
}

// eventually tries a line until it succeeds or its time is over.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	patience, err := time.ParseDuration(args[0])
	if err != nil || neg || len(args) != 2 {
		ts.Fatalf("usage: eventually DURATION LINE")
	}
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for tries := 1; ; tries++ {
		out, errOut, err := bash(ts, args[1])
		over := time.Now().After(deadline)
		if err == nil || over {
			_, _ = ts.Stdout().Write(out)
			_, _ = ts.Stderr().Write(errOut)
		}
		if err == nil {
			return
		}
		if over {
			ts.Fatalf("not so within %s, in %d tries; the last: %v", patience, tries, err)
		}
		<-tick.C
	}
}

// bash runs a line. Variables that it sets stay, as they do in a terminal.
func bash(ts *testscript.TestScript, line string) (out, errOut []byte, err error) {
	s := ts.Value(storyKey{}).(*story)
	kept := filepath.Join(s.dir, "variables")
	cmd := exec.Command("bash", "-c", "set -a; trap 'env -0 >"+kept+"' EXIT\n"+line)
	cmd.Dir, cmd.Env = ts.MkAbs("."), s.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	if after, e := os.ReadFile(kept); e == nil {
		s.env = strings.Split(strings.TrimSuffix(string(after), "\x00"), "\x00")
		for _, kv := range s.env {
			name, value, _ := strings.Cut(kv, "=")
			ts.Setenv(name, value)
		}
	}
	return stdout.Bytes(), stderr.Bytes(), err
}

// spread checks what `uniq -c` printed.
func spread(ts *testscript.TestScript, neg bool, args []string) {
	var bounds [3]int
	for i := range bounds {
		n := -1
		if len(args) == len(bounds) {
			n, _ = strconv.Atoi(args[i])
		}
		if neg || n < 0 {
			ts.Fatalf("usage: spread LINES MIN MAX")
		}
		bounds[i] = n
	}
	printed := strings.TrimSpace(ts.ReadFile("stdout"))
	if err := checkSpread(printed, bounds[0], bounds[1], bounds[2]); err != nil {
		ts.Fatalf("%v", err)
	}
}

func checkSpread(printed string, lines, least, most int) error {
	got := strings.Split(printed, "\n")
	if len(got) != lines {
		return fmt.Errorf("want %d different lines, each %d to %d times; got %d:\n%s", lines, least, most, len(got), printed)
	}
	for _, line := range got {
		var n int
		if _, err := fmt.Sscan(line, &n); err != nil || n < least || n > most {
			return fmt.Errorf("%q: want each line %d to %d times; got:\n%s", strings.TrimSpace(line), least, most, printed)
		}
	}
	return nil
}
