package cli

import (
	"slices"
	"testing"

	"github.com/spf13/cobra"
)

func TestCompletionOfTheLab(t *testing.T) {
	words, directive := parseCompletion("up\tStart a lab\ndown\tRemove a lab\n:4\n")
	if want := []string{"up\tStart a lab", "down\tRemove a lab"}; !slices.Equal(words, want) {
		t.Errorf("words are %q, want %q", words, want)
	}
	if directive != cobra.ShellCompDirectiveNoFileComp {
		t.Errorf("directive is %d, want %d", directive, cobra.ShellCompDirectiveNoFileComp)
	}
	if _, directive := parseCompletion("zonewise lab: no such command"); directive != cobra.ShellCompDirectiveError {
		t.Errorf("an answer without a directive gives %d, want an error", directive)
	}
}
