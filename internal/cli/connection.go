package cli

import (
	"os"

	"github.com/spf13/pflag"

	"github.com/zonewise/zonewise/internal/reflect/kube"
)

// connectionFlags adds what agent and controller have in common.
func connectionFlags(f *pflag.FlagSet, conn *kube.Options, level *string) {
	f.StringVar(&conn.APIServer, "apiserver", os.Getenv("ZONEWISE_APISERVER"),
		"https://host:port of the API server, where its ClusterIP may not work yet (env ZONEWISE_APISERVER)")
	f.StringVar(&conn.Kubeconfig, "kubeconfig", "", "file to use instead of the pod's service account")
	f.StringVar(level, "log-level", "info", "debug, info, warn or error")
}
