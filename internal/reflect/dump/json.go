package dump

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
)

// json reads values one after another: objects, lists of objects, arrays of objects.
func (s *splitter) json(in *bufio.Reader) error {
	failing := &failing{r: in}
	d := json.NewDecoder(failing)
	for {
		err := s.jsonValue(d)
		switch {
		case failing.err != nil:
			return failing.err
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			s.note("ends in the middle, after object %d: what follows is missing", s.seq)
			return nil
		case err != nil:
			s.note("after object %d, byte %d: %v: what follows is not read", s.seq, d.InputOffset(), err)
			return nil
		}
	}
}

// failing remembers the reader's own error, which the decoder mixes with those of the text.
type failing struct {
	r   io.Reader
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}

func (s *splitter) jsonValue(d *json.Decoder) error {
	t, err := d.Token()
	if err != nil {
		return err // io.EOF: no further value
	}
	switch t {
	case json.Delim('['):
		err = s.jsonItems(d, "")
	case json.Delim('{'):
		err = s.jsonObject(d)
	default:
		s.note("after object %d: %v is no object", s.seq, t)
	}
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// jsonObject is behind an opening brace. It sends an object as a whole, but the items of a list one
// by one: a list may be larger than memory.
func (s *splitter) jsonObject(d *json.Decoder) error {
	var whole bytes.Buffer
	head := map[string]string{} // what tells the kind of items
	isList := false
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		name, _ := key.(string)
		if name == "items" && !isList {
			isList = true
			t, err := d.Token()
			if err != nil {
				return err
			}
			if t == json.Delim('[') {
				if err := s.jsonItems(d, itemKind(head["apiVersion"], head["kind"])); err != nil {
					return err
				}
				continue
			}
			if t != nil {
				s.note("after object %d: items is no array", s.seq)
				return errItems
			}
			continue
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		var text string
		if json.Unmarshal(value, &text) == nil {
			head[name] = text
		}
		if !isList {
			appendMember(&whole, name, value)
		}
	}
	if _, err := d.Token(); err != nil {
		return err
	}
	if !isList {
		whole.WriteByte('}')
		if whole.Len() == 1 {
			whole.Reset()
			whole.WriteString("{}")
		}
		s.send(item{text: whole.Bytes()})
	}
	return nil
}

var errItems = errors.New("a list without items")

func appendMember(to *bytes.Buffer, name string, value json.RawMessage) {
	separator := byte(',')
	if to.Len() == 0 {
		separator = '{'
	}
	to.WriteByte(separator)
	quoted, _ := json.Marshal(name) // a string always can be
	to.Write(quoted)
	to.WriteByte(':')
	to.Write(value)
}

// jsonItems is behind an opening bracket.
func (s *splitter) jsonItems(d *json.Decoder, kind string) error {
	for d.More() {
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
		s.send(item{text: value, kind: kind})
	}
	_, err := d.Token()
	return err
}

// itemKind is the kind of a typed list's items, which need not name it themselves: "v1 Node" of a
// NodeList. A List tells nothing.
func itemKind(apiVersion, kind string) string {
	if base, ok := strings.CutSuffix(kind, "List"); ok && base != "" {
		return apiVersion + " " + base
	}
	return ""
}
