package demo

import (
	"fmt"
	"io"
	"regexp"
	"strings"
)

// teller writes the narration: titles, the commands as a user would type them, what they print.
type teller struct {
	out   io.Writer
	color bool
}

func (t teller) title(n int, text string) {
	fmt.Fprintf(t.out, "\n%s\n", t.bright(fmt.Sprintf("%d. %s", n, text)))
}

func (t teller) command(line string) { fmt.Fprintf(t.out, "   %s\n", t.bright("$ "+line)) }

func (t teller) output(text string) {
	for line := range strings.Lines(strings.TrimRight(text, "\n")) {
		fmt.Fprintf(t.out, "   %s\n", strings.TrimRight(line, " \n"))
	}
}

func (t teller) say(format string, args ...any) { fmt.Fprintf(t.out, "   "+format+"\n", args...) }

func (t teller) bright(text string) string {
	if !t.color {
		return text
	}
	return "\033[1m" + text + "\033[0m"
}

var plain = regexp.MustCompile(`^[-\w./:=,@]+$`)

// quote writes a command as it can be typed into a shell.
func quote(argv []string) string {
	words := make([]string, len(argv))
	for i, w := range argv {
		words[i] = w
		if !plain.MatchString(w) {
			words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}
