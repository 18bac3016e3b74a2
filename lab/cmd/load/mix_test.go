package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// echoServer answers as an echo server does, by TCP and UDP.
func echoServer(t *testing.T, opened *atomic.Int64) (tcp, udp string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /bytes", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.ParseInt(r.URL.Query().Get("n"), 10, 64)
		_, _ = io.CopyN(w, zeros{}, n)
	})
	mux.HandleFunc("POST /sink", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintln(w, n)
	})
	mux.HandleFunc("/", echo)
	server := httptest.NewUnstartedServer(mux)
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(buf[:n], from)
		}
	}()
	return strings.TrimPrefix(server.URL, "http://"), conn.LocalAddr().String()
}

// All kinds move what they are to, evenly, and nothing else.
func TestMix(t *testing.T) {
	var opened atomic.Int64
	tcp, udp := echoServer(t, &opened)
	m := mix{tcp: []string{tcp, tcp}, udp: []string{udp}, names: []string{"localhost"}, bytes: 20e6, length: 1500 * time.Millisecond}
	begin := time.Now()
	result := m.run(t.Context())
	if took := time.Since(begin); took < m.length || took > m.length+patience {
		t.Errorf("it took %s, not %s", took, m.length)
	}
	var all int64
	for _, k := range m.kinds() {
		r := result[k.name]
		all += r.Bytes
		if r.Failed > 0 || r.Done == 0 || float64(r.Bytes) > k.share*float64(m.bytes)+float64(k.most) {
			t.Errorf("%s: %+v", k.name, r)
		}
	}
	if all < m.bytes*8/10 {
		t.Errorf("%d bytes of %d", all, m.bytes)
	}
	// A connection for each but streams, which share few.
	short := int64(result["requests"].Done + result["downloads"].Done + result["uploads"].Done)
	if n := opened.Load(); n < short || n > short+2 {
		t.Errorf("%d connections for %d short ones and streams", n, short)
	}
}

// Who is not there is told of, and tried again.
func TestMixWithoutServers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	m := mix{tcp: []string{l.Addr().String()}, bytes: 50e6, length: 450 * time.Millisecond}
	for name, r := range m.run(t.Context()) {
		if r.Done > 0 || r.Failed < 2 || r.Failed > 5 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// Datagrams whose answers do not come fail, one after another.
func TestMixIntoNothing(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	m := mix{udp: []string{conn.LocalAddr().String()}, bytes: 1e6, length: 300 * time.Millisecond}
	for name, r := range m.run(t.Context()) {
		if r.Done > 0 || r.Failed != 1 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}
