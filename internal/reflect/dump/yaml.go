package dump

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
)

// yaml cuts by indentation alone: a line at the indentation of a list's items that begins with a
// dash begins an item, because whatever belongs to the item before is indented more. So no more than
// an item is ever parsed at once.
func (s *splitter) yaml(in *bufio.Reader) error {
	d := &document{}
	for {
		line, err := in.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if len(line) > 0 {
			s.line(d, line)
		}
		if err != nil {
			s.end(d, true)
			return nil
		}
	}
}

// document is the YAML document that is being read.
type document struct {
	head   bytes.Buffer // all of it, the items of a list left out
	item   []byte       // the item that is being read
	list   bool         // it has a block of items
	inside bool         // of that block
	indent int          // of items; -1 until the first
}

func (s *splitter) line(d *document, line []byte) {
	text := bytes.TrimRight(line, " \t\r\n")
	if marker := bytes.HasPrefix(text, []byte("---")); marker || bytes.Equal(text, []byte("...")) {
		if !marker || len(text) == 3 || text[3] == ' ' || text[3] == '\t' {
			s.end(d, false)
			if marker && len(text) > 4 {
				s.line(d, append(bytes.Clone(text[4:]), '\n'))
			}
			return
		}
	}
	if !d.inside {
		if name, comment, _ := bytes.Cut(text, []byte("items:")); !d.list && len(name) == 0 && len(text) > 0 && isComment(comment) {
			d.list, d.inside, d.indent = true, true, -1
			return
		}
		d.head.Write(line)
		return
	}
	bare := bytes.TrimLeft(text, " ")
	indent := len(text) - len(bare)
	dash := len(bare) > 0 && bare[0] == '-' && (len(bare) == 1 || bare[1] == ' ')
	switch {
	case len(bare) == 0 || isComment(bare) && d.item == nil:
		d.item = appendTo(d.item, line)
	case dash && (d.indent < 0 || indent == d.indent):
		s.flush(d)
		d.indent = indent
		d.item = append([]byte{}, line...)
		d.item[indent] = ' '
	case indent > d.indent && d.indent >= 0:
		d.item = append(d.item, line...)
	default: // the list's own next field
		s.flush(d)
		d.inside = false
		d.head.Write(line)
	}
}

// appendTo leaves out what stands before the first item.
func appendTo(item, line []byte) []byte {
	if item == nil {
		return nil
	}
	return append(item, line...)
}

func isComment(text []byte) bool {
	text = bytes.TrimLeft(text, " \t")
	return len(text) == 0 || text[0] == '#'
}

func (s *splitter) flush(d *document) {
	if d.item != nil {
		head := kindOf(d.head.Bytes())
		s.send(item{text: d.item, yaml: true, kind: itemKind(head.apiVersion, head.kind)})
	}
	d.item = nil
}

// end finishes a document. A list whose kind is still to come, as kubectl writes it behind the items,
// at the end of the input is a list that was cut off: so was its last item, probably.
func (s *splitter) end(d *document, last bool) {
	cut := last && d.list && kindOf(d.head.Bytes()).kind == ""
	switch {
	case cut && d.item != nil:
		s.note("ends in the middle, in %s: that and what follows is missing", kindOf(d.item).name("an object without a name"))
	case cut:
		s.note("ends in the middle of a list")
	case d.list:
		s.flush(d)
	case !blank(d.head.Bytes()):
		s.send(item{text: bytes.Clone(d.head.Bytes()), yaml: true})
	}
	*d = document{}
}

// blank tells whether there are comments and empty lines only.
func blank(text []byte) bool {
	for line := range bytes.Lines(text) {
		if !isComment(bytes.TrimSpace(line)) {
			return false
		}
	}
	return true
}

// identity is what names an object.
type identity struct{ apiVersion, kind, namespace, object string }

// name returns "Node n7", or the other where not even the kind is known.
func (i identity) name(otherwise string) string {
	switch {
	case i.kind == "":
		return otherwise
	case i.object == "":
		return i.kind + " without a name"
	case i.namespace == "":
		return i.kind + " " + i.object
	}
	return i.kind + " " + i.namespace + "/" + i.object
}

// kindOf looks for an object's identity in YAML that may not be whole.
func kindOf(text []byte) identity {
	var out identity
	walk(text, func(path, value string, _ []byte) {
		value = strings.Trim(value, `"'`)
		switch path {
		case "apiVersion":
			out.apiVersion = value
		case "kind":
			out.kind = value
		case "metadata.namespace":
			out.namespace = value
		case "metadata.name":
			out.object = value
		}
	})
	return out
}

// walk visits the lines "key: value" of block YAML with the path that their indentation gives. It
// takes the lines of a text block for such, too: it is there to say where something is, not what.
func walk(text []byte, visit func(path, value string, line []byte)) {
	type level struct {
		indent int
		key    string
	}
	var stack []level
	for line := range bytes.Lines(text) {
		bare := strings.TrimLeft(string(line), " -")
		key, value, ok := strings.Cut(strings.TrimRight(bare, " \r\n"), ":")
		if !ok || value != "" && value[0] != ' ' {
			continue
		}
		indent := len(line) - len(bare)
		for len(stack) > 0 && stack[len(stack)-1].indent >= indent {
			stack = stack[:len(stack)-1]
		}
		stack = append(stack, level{indent, key})
		var path []string
		for _, l := range stack {
			path = append(path, l.key)
		}
		visit(strings.Join(path, "."), strings.TrimSpace(value), line)
	}
}
