package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// turn picks one after the other.
type turn int

func (t *turn) next(from []string) string {
	*t++
	return from[int(*t)%len(from)]
}

// web talks HTTP to echo servers: by a connection for each request, or by few that stay open.
type web struct {
	targets []string
	client  *http.Client
	turn    turn
	down    bool
}

func newWeb(targets []string, keep bool) *web {
	return &web{targets: targets, client: &http.Client{Transport: &http.Transport{DisableKeepAlives: !keep, DisableCompression: true}}}
}

// page asks for the page that the server answers everybody with.
func (w *web) page(ctx context.Context, _ int64) (int64, error) {
	return w.exchange(ctx, http.MethodGet, "/", 0)
}

func (w *web) download(ctx context.Context, n int64) (int64, error) {
	return w.exchange(ctx, http.MethodGet, fmt.Sprintf("/bytes?n=%d", n), 0)
}

func (w *web) upload(ctx context.Context, n int64) (int64, error) {
	return w.exchange(ctx, http.MethodPost, "/sink", n)
}

// both does one, then the other.
func (w *web) both(ctx context.Context, n int64) (int64, error) {
	if w.down = !w.down; w.down {
		return w.download(ctx, n)
	}
	return w.upload(ctx, n)
}

func (w *web) exchange(ctx context.Context, method, path string, body int64) (int64, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+w.turn.next(w.targets)+path, io.LimitReader(zeros{}, body))
	if err != nil {
		return 0, err
	}
	request.ContentLength = body
	if body == 0 {
		request.Body = http.NoBody
	}
	response, err := w.client.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	n, err := io.Copy(io.Discard, response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, response.Status)
	}
	return body + n, err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// sizes of datagrams: a few of them are cut into fragments on their way.
var sizes = []int64{40, 300, 1200, 1200, 1400, 8000, 200, 20000}

// datagram returns the next one, of n bytes at most with its answer.
func datagram(nth int, n int64) []byte {
	return []byte(strings.Repeat("z", int(min(sizes[nth%len(sizes)], n/2))))
}

// connected sends from sockets that are connected to a server each, eight datagrams from each.
type connected struct {
	targets []string
	turn    turn
	conn    net.Conn
	sent    int
}

func (c *connected) do(ctx context.Context, n int64) (int64, error) {
	if c.conn != nil && c.sent%len(sizes) == 0 {
		c.close()
	}
	if c.conn == nil {
		conn, err := (&net.Dialer{}).DialContext(ctx, "udp", c.turn.next(c.targets))
		if err != nil {
			return 0, err
		}
		c.conn = conn
	}
	out := datagram(c.sent, n)
	c.sent++
	if _, err := c.conn.Write(out); err != nil {
		c.close()
		return 0, err
	}
	got, err := answer(c.conn, len(out))
	if err != nil {
		c.close() // its server may be gone: the next one starts anew
	}
	return int64(len(out) + got), err
}

func (c *connected) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// unconnected sends from one socket to all of them.
type unconnected struct {
	targets []string
	turn    turn
	conn    net.PacketConn
	sent    int
}

func (u *unconnected) do(_ context.Context, n int64) (int64, error) {
	to, err := net.ResolveUDPAddr("udp", u.turn.next(u.targets))
	if err != nil {
		return 0, err
	}
	if u.conn == nil {
		if u.conn, err = net.ListenPacket("udp", ":0"); err != nil {
			return 0, err
		}
	}
	out := datagram(u.sent, n)
	u.sent++
	if _, err := u.conn.WriteTo(out, to); err != nil {
		return 0, err
	}
	got, err := answer(reader{u.conn}, len(out))
	if err != nil {
		u.close() // an answer that comes late must not be taken for the next one's
	}
	return int64(len(out) + got), err
}

func (u *unconnected) close() {
	if u.conn != nil {
		_ = u.conn.Close()
		u.conn = nil
	}
}

// reader reads from whoever sends.
type reader struct{ net.PacketConn }

func (r reader) Read(p []byte) (int, error) {
	n, _, err := r.ReadFrom(p)
	return n, err
}

// answerTime is how long a datagram's answer may take.
const answerTime = time.Second

// answer waits for a datagram that is as long as what was sent.
func answer(from interface {
	io.Reader
	SetReadDeadline(time.Time) error
}, size int) (int, error) {
	if err := from.SetReadDeadline(time.Now().Add(answerTime)); err != nil {
		return 0, err
	}
	n, err := from.Read(make([]byte, 64<<10))
	if err == nil && n != size {
		err = fmt.Errorf("an answer of %d bytes to %d", n, size)
	}
	return n, err
}

// lookup asks for names.
type lookup struct {
	names []string
	turn  turn
}

func (l *lookup) do(ctx context.Context, _ int64) (int64, error) {
	_, err := (&net.Resolver{PreferGo: true}).LookupHost(ctx, l.turn.next(l.names))
	if none := new(net.DNSError); errors.As(err, &none) && none.IsNotFound {
		return 0, nil // that is an answer, too
	}
	return 0, err
}
