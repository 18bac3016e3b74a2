package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// A file is a line that names the format, then frames: kind (1 byte), length (4), CRC-32C of both and
// of the content (4), content. A head comes first and an end last, so that a file which was cut off is
// told from a whole one. Numbers are little-endian.
const magic = "zonewise flows 1\n"

// The kinds of frames.
const (
	headFrame       = 'H' // not compressed: what is looked at when a store is opened
	dictionaryFrame = 'D'
	rowsFrame       = 'R' // up to `chunk` rows of one minute or hour
	positionsFrame  = 'P'
	endFrame        = 'E'
)

const (
	frameHead = 9
	// headSize is as much of a file as its head needs.
	headSize = len(magic) + frameHead + binary.MaxVarintLen64
	// maxFrame bounds what a frame may say that it unpacks to: a damaged one must not take all memory.
	maxFrame = 1 << 30
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	errDamaged = errors.New("damaged")
	// errNotSynced: the file is there, and might not be after a loss of power.
	errNotSynced = errors.New("name not synced")
)

// head is what a file says of itself.
type head struct {
	// through is the last commit whose rows of this minute, or whose positions, are in the file.
	// A commit has its own number here.
	through uint64
	closed  bool // an hour's: it stays as it is, its minutes may be gone
}

// packer compresses what goes into files and unpacks what comes out.
type packer struct {
	in  *zstd.Encoder
	out *zstd.Decoder
}

func newPacker() (packer, error) {
	in, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(2), zstd.WithEncoderCRC(false))
	if err != nil {
		return packer{}, err
	}
	out, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(maxFrame))
	return packer{in, out}, err
}

// pack makes a file.
func (p packer) pack(h head, b *book, at []position) []byte {
	out := begin(h)
	if at != nil {
		out = frame(out, positionsFrame, p.in.EncodeAll(appendPositions(nil, at), nil))
	}
	if b != nil {
		out = frame(out, dictionaryFrame, p.in.EncodeAll(b.dictionary(), nil))
		for _, when := range slices.Sorted(maps.Keys(b.rows)) {
			for rows := range slices.Chunk(b.rows[when], chunk) {
				out = frame(out, rowsFrame, p.in.EncodeAll(appendRows(nil, when, rows), nil))
			}
		}
	}
	return frame(out, endFrame, nil)
}

// begin makes a file's first bytes.
func begin(h head) []byte {
	return frame([]byte(magic), headFrame, binary.AppendUvarint(nil, h.through))
}

func frame(out []byte, kind byte, content []byte) []byte {
	start := len(out)
	out = append(out, kind)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(content)))
	out = append(out, 0, 0, 0, 0)
	out = append(out, content...)
	binary.LittleEndian.PutUint32(out[start+5:], sum(out[start:]))
	return out
}

// sum is the check of a frame, over all of it but the check itself.
func sum(frame []byte) uint32 {
	return crc32.Update(crc32.Checksum(frame[:5], castagnoli), castagnoli, frame[frameHead:])
}

// cut takes the first frame off data.
func cut(data []byte) (kind byte, content, rest []byte, err error) {
	if len(data) < frameHead {
		return 0, nil, nil, errDamaged
	}
	end := frameHead + int64(binary.LittleEndian.Uint32(data[1:]))
	if end > int64(len(data)) || sum(data[:end]) != binary.LittleEndian.Uint32(data[5:]) {
		return 0, nil, nil, errDamaged
	}
	return data[0], data[frameHead:end], data[end:], nil
}

// cutHead takes the first line and the head off a file.
func cutHead(data []byte) (h head, rest []byte, err error) {
	data, ok := bytes.CutPrefix(data, []byte(magic))
	if !ok {
		return head{}, nil, fmt.Errorf("%w: it does not begin with %q", errDamaged, magic)
	}
	kind, content, rest, err := cut(data)
	if err != nil || kind != headFrame {
		return head{}, nil, errDamaged
	}
	in := reader{data: content}
	h.through = in.uvarint()
	if in.end() != nil {
		return head{}, nil, errDamaged
	}
	return h, rest, nil
}

// readHead reads a file's head alone.
func readHead(path string) (head, error) {
	f, err := os.Open(path)
	if err != nil {
		return head{}, err
	}
	defer f.Close()
	data := make([]byte, headSize)
	n, err := io.ReadFull(f, data)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return head{}, errors.Join(errDamaged, err)
	}
	h, _, err := cutHead(data[:n])
	return h, err
}

// unpack reads a file: its positions, and its rows a chunk at a time. What is not whole from its first to
// its last byte is not read at all.
func (p packer) unpack(data []byte, visit func(b *book, at int64, rows []row) error) (head, []position, error) {
	h, rest, err := cutHead(data)
	if err != nil {
		return head{}, nil, err
	}
	if err := whole(rest); err != nil {
		return head{}, nil, err
	}
	var b *book
	var at []position
	for {
		kind, content, more, err := cut(rest)
		if err != nil {
			return head{}, nil, err
		}
		rest = more
		if kind == endFrame {
			return h, at, nil
		}
		plain, err := p.out.DecodeAll(content, nil)
		if err == nil {
			switch {
			case kind == positionsFrame:
				at, err = readPositions(plain)
			case kind == dictionaryFrame:
				b, err = readDictionary(plain)
			case kind == rowsFrame && b != nil:
				err = b.visit(plain, visit)
			default:
				err = errMalformed
			}
		}
		var stopped stop
		if errors.As(err, &stopped) {
			return head{}, nil, stopped.error
		}
		if err != nil {
			return head{}, nil, fmt.Errorf("%w: %w", errDamaged, err)
		}
	}
}

// stop is an error of who visits, not of the file.
type stop struct{ error }

func (b *book) visit(plain []byte, visit func(b *book, at int64, rows []row) error) error {
	when, rows, err := b.readRows(plain)
	if err != nil || visit == nil {
		return err
	}
	if err := visit(b, when, rows); err != nil {
		return stop{err}
	}
	return nil
}

// whole checks every frame.
func whole(rest []byte) error {
	for {
		kind, _, more, err := cut(rest)
		if err != nil {
			return err
		}
		rest = more
		if kind == endFrame {
			if len(rest) > 0 {
				return fmt.Errorf("%w: something follows its end", errDamaged)
			}
			return nil
		}
	}
}

// put writes a file so that at any moment, whatever is killed, there is the old one or the new one.
func (s *Store) put(name string, data []byte) error {
	path := filepath.Join(s.dir, name)
	temporary := path + temporarySuffix
	err := write(temporary, data, !s.opts.unsynced)
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return errors.Join(err, remove(temporary))
	}
	if s.opts.unsynced {
		return nil
	}
	if err := syncDir(s.dir); err != nil {
		return fmt.Errorf("%w: %w", errNotSynced, err)
	}
	return nil
}

func write(path string, data []byte, sync bool) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil && sync {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// remove deletes a file if it is there.
func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
