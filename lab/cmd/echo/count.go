package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
)

// zeros reads as zeros without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// sendBytes answers GET /bytes?n=N with exactly N bytes.
func sendBytes(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.URL.Query().Get("n"), 10, 64)
	if err != nil || n < 0 {
		http.Error(w, "n: want a number of bytes", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	io.CopyN(w, zeros{}, n)
}

// countBytes answers POST /sink with the number of body bytes that arrived.
func countBytes(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprintln(w, n)
}

// echoDatagrams sends each datagram back to its sender until conn is closed. The
// datagram "hostname" is answered with the name of the host instead.
func echoDatagrams(conn net.PacketConn) error {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		answer := buf[:n]
		if s := string(answer); s == "hostname" || s == "hostname\n" {
			answer = []byte(hostname() + "\n")
		}
		conn.WriteTo(answer, from)
	}
}
