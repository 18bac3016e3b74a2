package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"zonewise":         func() { os.Exit(Main(os.Args)) },
		"kubectl-zonewise": func() { os.Exit(Main(os.Args)) },
	})
}

// The scripts are what a user sees where no cluster is needed.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("KUBECONFIG", "")
			own, _, _ := strings.Cut(e.Getenv("PATH"), string(os.PathListSeparator)) // where Main put the programs
			e.Setenv("OWN", own)
			e.Setenv("KUBERNETES_SERVICE_HOST", "")
			dumps, err := filepath.Abs("testdata/dumps")
			e.Setenv("DUMPS", dumps)
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}
