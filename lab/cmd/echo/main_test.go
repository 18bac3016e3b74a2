package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

func TestTextPage(t *testing.T) {
	server := httptest.NewServer(handler(answerText))
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	t.Setenv("POD_NAME", "echo-1")

	request, err := http.NewRequest(http.MethodPost, server.URL+"/a%20b?x=1", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	request.Host = "svc-clusterip"
	request.Header.Set("X-Forwarded-For", "203.0.113.9")
	page := fetch(t, request)
	name, _ := os.Hostname()
	for _, want := range []string{
		"\nHostname: " + name + "\n", "\tpod name:\techo-1\n", "\tclient_address=127.0.0.1\n", "\tmethod=POST\n",
		"\treal path=/a%20b?x=1\n", "\tquery=x=1\n", "\trequest_version=1.1\n",
		"\trequest_uri=http://svc-clusterip:" + port + "/a%20b?x=1\n", "\thost=svc-clusterip\n", "\nRequest Body:\nhello\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in:\n%s", want, page)
		}
	}
	if n := strings.Count(page, "Hostname"); n != 1 {
		t.Errorf("Hostname stands %d times in the page; grep counts on one", n)
	}
}

func TestJSONPage(t *testing.T) {
	server := httptest.NewServer(handler(answerJSON))
	defer server.Close()
	request, err := http.NewRequest(http.MethodPost, server.URL+"/p?q=1", strings.NewReader(`{"a":2}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Host = "echo:80"
	var got page
	if err := json.Unmarshal([]byte(fetch(t, request)), &got); err != nil {
		t.Fatal(err)
	}
	name, _ := os.Hostname()
	if got.Environment["HOSTNAME"] == "" || (os.Getenv("HOSTNAME") == "" && got.Environment["HOSTNAME"] != name) {
		t.Errorf("environment.HOSTNAME = %q, want %q", got.Environment["HOSTNAME"], name)
	}
	body, _ := got.Request.Body.(map[string]any)
	if got.Host.Hostname != "echo" || got.Host.IP != "127.0.0.1" || got.HTTP.OriginalURL != "/p?q=1" || got.Request.Query["q"] != "1" || body["a"] != 2.0 {
		t.Errorf("page = %+v", got)
	}
}

func TestBytesAreCounted(t *testing.T) {
	server := httptest.NewServer(handler(answerText))
	defer server.Close()
	get := func(path string) *http.Request {
		r, err := http.NewRequest(http.MethodGet, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, n := range []int{0, 1, 1 << 20, 5_000_000} {
		if got := len(fetch(t, get(fmt.Sprintf("/bytes?n=%d", n)))); got != n {
			t.Errorf("/bytes?n=%d sent %d", n, got)
		}
		r, err := http.NewRequest(http.MethodPost, server.URL+"/sink", io.LimitReader(zeros{}, int64(n)))
		if err != nil {
			t.Fatal(err)
		}
		if got := fetch(t, r); got != fmt.Sprintf("%d\n", n) {
			t.Errorf("/sink of %d bytes answered %q", n, got)
		}
	}
	for _, bad := range []string{"/bytes", "/bytes?n=-1", "/bytes?n=x"} {
		res, err := http.DefaultClient.Do(get(bad))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: status %d", bad, res.StatusCode)
		}
	}
}

// An open request is finished after the end was asked for, a new one is refused.
func TestGracefulEnd(t *testing.T) {
	tcp, udp := sockets(t)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	open := make(chan struct{})
	counting := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(open)
		countBytes(w, r)
	})
	go func() { done <- serve(ctx, tcp, udp, counting) }()

	body, feed := io.Pipe()
	answer := make(chan string, 1)
	go func() {
		res, err := http.Post("http://"+tcp.Addr().String()+"/sink", "", body)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		answer <- string(b)
	}()
	feed.Write([]byte("half"))
	<-open
	stop()
	for refused := time.NewTicker(time.Millisecond); ; <-refused.C {
		conn, err := net.Dial("tcp", tcp.Addr().String())
		if err != nil {
			break
		}
		conn.Close()
	}
	feed.Write([]byte("rest"))
	feed.Close()
	if got := <-answer; got != "8\n" {
		t.Errorf("open request got %q", got)
	}
	if err := <-done; err != nil {
		t.Errorf("serve: %v", err)
	}
}

func TestDatagrams(t *testing.T) {
	tcp, udp := sockets(t)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, tcp, udp, handler(answerText)) }()
	defer func() { stop(); <-done }()

	conn, err := net.Dial("udp", udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	name, _ := os.Hostname()
	for ask, want := range map[string]string{"ping": "ping", "hostname": name + "\n"} {
		buf := make([]byte, 100)
		if _, err := conn.Write([]byte(ask)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err != nil || string(buf[:n]) != want {
			t.Errorf("%q answered %q, %v; want %q", ask, buf[:n], err, want)
		}
	}
}

func sockets(t *testing.T) (net.Listener, net.PacketConn) {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { udp.Close() })
	return tcp, udp
}

func fetch(t *testing.T, r *http.Request) string {
	t.Helper()
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
