package dump

import (
	"bytes"
	"encoding/json"
	"slices"

	"sigs.k8s.io/yaml"
)

// blockJSON turns YAML into JSON where it is as plain as kubectl prints it: block maps and lists of
// one-line scalars. That is ten times as fast as a YAML library, which large dumps need. Whatever is
// not so plain it leaves to the library: a scalar that is no obvious one, or all of the text (false).
func blockJSON(text []byte) ([]byte, bool) {
	b := &block{}
	for raw := range bytes.Lines(text) {
		line := bytes.TrimRight(raw, "\r\n")
		for _, c := range line {
			if c < ' ' || c > '~' {
				return nil, false // tabs, and letters that YAML knows special ones of
			}
		}
		bare := bytes.TrimLeft(line, " ")
		b.lines = append(b.lines, blockLine{indent: len(line) - len(bare), text: bytes.TrimRight(bare, " "), raw: raw})
	}
	b.out = make([]byte, 0, len(text))
	b.skipBlank()
	if b.at == len(b.lines) || !b.value(b.lines[b.at].indent, 0) || b.at < len(b.lines) {
		return nil, false
	}
	return b.out, true
}

type blockLine struct {
	indent int
	text   []byte // without indentation
	raw    []byte
}

// block is text being read. Its methods return false where the text is not plain enough.
type block struct {
	lines []blockLine
	at    int
	out   []byte
}

// maxDepth and maxKeys are far beyond what Kubernetes objects have.
const (
	maxDepth = 100
	maxKeys  = 200
)

func (b *block) skipBlank() {
	for b.at < len(b.lines) && len(b.lines[b.at].text) == 0 {
		b.at++
	}
}

// here returns the line that is next, if it has the indentation.
func (b *block) here(indent int) ([]byte, bool) {
	if b.at == len(b.lines) || b.lines[b.at].indent != indent {
		return nil, false
	}
	return b.lines[b.at].text, true
}

func isDash(text []byte) bool {
	return len(text) > 0 && text[0] == '-' && (len(text) == 1 || text[1] == ' ')
}

// value reads the map or list whose first line is next.
func (b *block) value(indent, depth int) bool {
	text, ok := b.here(indent)
	switch {
	case !ok || depth > maxDepth:
		return false
	case isDash(text):
		return b.list(indent, depth)
	}
	return b.object(indent, depth)
}

func (b *block) list(indent, depth int) bool {
	b.out = append(b.out, '[')
	for n := 0; ; n++ {
		text, ok := b.here(indent)
		if !ok || !isDash(text) {
			break
		}
		if n > 0 {
			b.out = append(b.out, ',')
		}
		rest := bytes.TrimLeft(text[1:], " ")
		if len(rest) == 0 {
			return false
		}
		_, _, isKey := cutKey(rest)
		if !isKey && !isDash(rest) {
			if !b.scalar(rest, indent) {
				return false
			}
			continue
		}
		inner := indent + len(text) - len(rest) // what stands behind the dash is a block of its own
		b.lines[b.at].indent, b.lines[b.at].text = inner, rest
		if !b.value(inner, depth+1) {
			return false
		}
	}
	b.out = append(b.out, ']')
	return true
}

func (b *block) object(indent, depth int) bool {
	b.out = append(b.out, '{')
	var keys [][]byte
	for {
		text, ok := b.here(indent)
		if !ok || isDash(text) {
			break
		}
		key, rest, ok := cutKey(text)
		if !ok || len(keys) == maxKeys || slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) }) {
			return false
		}
		if len(keys) > 0 {
			b.out = append(b.out, ',')
		}
		keys = append(keys, key)
		b.quote(key)
		b.out = append(b.out, ':')
		if len(rest) > 0 {
			if !b.scalar(rest, indent) {
				return false
			}
			continue
		}
		b.at++
		b.skipBlank()
		switch next, same := b.here(indent); {
		case b.at < len(b.lines) && b.lines[b.at].indent > indent:
			if !b.value(b.lines[b.at].indent, depth+1) {
				return false
			}
		case same && isDash(next):
			if !b.list(indent, depth+1) {
				return false
			}
		default:
			b.out = append(b.out, "null"...)
		}
	}
	b.out = append(b.out, '}')
	return len(keys) > 0
}

// cutKey splits "key: rest". A key is a plain word that is nothing but a string, or a quoted one.
func cutKey(text []byte) (key, rest []byte, ok bool) {
	if text[0] == '"' || text[0] == '\'' {
		end := bytes.IndexByte(text[1:], text[0]) + 1
		if end == 0 || end+1 == len(text) || text[end+1] != ':' {
			return nil, nil, false
		}
		key, rest = text[1:end], text[end+2:]
		if bytes.ContainsAny(key, `"'\`) {
			return nil, nil, false
		}
	} else {
		end := bytes.Index(text, []byte(": "))
		if end < 0 && text[len(text)-1] == ':' {
			end = len(text) - 1
		}
		if end < 0 || !isWord(text[:end]) {
			return nil, nil, false
		}
		key, rest = text[:end], text[end+1:]
	}
	if len(rest) > 0 && rest[0] != ' ' {
		return nil, nil, false
	}
	return key, bytes.TrimLeft(rest, " "), true
}

// isWord tells text that YAML takes for a string whatever it is about: it begins with a letter, has
// nothing special in it, and is none of the words for true, false and null.
func isWord(text []byte) bool {
	if len(text) == 0 {
		return false
	}
	if c := text[0] | 0x20; c < 'a' || c > 'z' {
		return false
	}
	for _, c := range text {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '.', c == '-', c == '/', c == '_':
		default:
			return false
		}
	}
	if len(text) > 5 {
		return true
	}
	switch string(bytes.ToLower(text)) {
	case "y", "n", "yes", "no", "on", "off", "true", "false", "null":
		return false
	}
	return true
}

// scalar reads what follows a key or a dash. Parent is the indentation that a text block's lines, and
// the lines of a scalar of several lines, have more of.
func (b *block) scalar(text []byte, parent int) bool {
	switch text[0] {
	case '|', '>':
		return b.textBlock(text, parent)
	case '&', '*', '!', '%', '@', '`', ',', '#', ':', ']', '}', '?':
		return false
	}
	b.at++
	b.skipBlank()
	if b.at < len(b.lines) && b.lines[b.at].indent > parent {
		return false // goes on there
	}
	last := len(text) - 1
	switch {
	case isWord(text):
		b.quote(text)
	case text[0] == '"' && last > 0 && text[last] == '"' && !bytes.ContainsAny(text[1:last], `"\`):
		b.out = append(b.out, text...)
	case isInteger(text), string(text) == "{}", string(text) == "[]", string(text) == "true", string(text) == "false":
		b.out = append(b.out, text...)
	case isIPv4(text), isUID(text):
		b.quote(text)
	case text[0] == '{', text[0] == '[':
		return false
	default:
		return b.library(text)
	}
	return true
}

// library asks the YAML library what a piece of text is, behind a key as it stands here.
func (b *block) library(text []byte) bool {
	out, err := yaml.YAMLToJSON(append([]byte("k: "), text...))
	if err != nil {
		return false
	}
	out, ok := bytes.CutPrefix(bytes.TrimSpace(out), []byte(`{"k":`))
	out, whole := bytes.CutSuffix(out, []byte("}"))
	b.out = append(b.out, out...)
	return ok && whole
}

// textBlock reads what a bar or an angle bracket announces: all lines that are indented more.
func (b *block) textBlock(head []byte, parent int) bool {
	if s := string(head); s != "|" && s != "|-" && s != "|+" && s != ">" && s != ">-" && s != ">+" {
		return false
	}
	text := append(bytes.Clone(head), '\n')
	for b.at++; b.at < len(b.lines) && (len(b.lines[b.at].text) == 0 || b.lines[b.at].indent > parent); b.at++ {
		text = append(text, b.lines[b.at].raw...)
	}
	return b.library(text)
}

// isInteger tells a number that YAML and JSON write the same way: no octal, no sign, no exponent.
func isInteger(text []byte) bool {
	if len(text) > 15 || text[0] == '0' && len(text) > 1 {
		return false
	}
	for _, c := range text {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// isIPv4 tells four numbers with dots between, which YAML takes for a string.
func isIPv4(text []byte) bool {
	dots := 0
	for _, c := range text {
		switch {
		case c == '.':
			dots++
		case c < '0' || c > '9':
			return false
		}
	}
	return dots == 3 && text[0] != '.'
}

// isUID tells the form 8-4-4-4-12 of hexadecimal digits, which YAML takes for a string even where all
// are decimal.
func isUID(text []byte) bool {
	if len(text) != 36 {
		return false
	}
	for i, c := range text {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (c == '-') {
			return false
		}
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// quote writes a string that holds printable ASCII.
func (b *block) quote(text []byte) {
	if bytes.ContainsAny(text, `"\`) {
		quoted, _ := json.Marshal(string(text)) // a string always can be
		b.out = append(b.out, quoted...)
		return
	}
	b.out = append(b.out, '"')
	b.out = append(b.out, text...)
	b.out = append(b.out, '"')
}
