package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
)

// bodyLimit bounds how much of a request's body is sent back.
const bodyLimit = 1 << 20

// answerText writes the page of registry.k8s.io/echoserver.
func answerText(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyLimit))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "\n\nHostname: %s\n\nPod Information:\n", hostname())
	writePod(&out)
	fmt.Fprint(&out, "\nServer values:\n\tserver_version=zonewise-echo\n\nRequest Information:\n")
	fmt.Fprintf(&out, "\tclient_address=%s\n\tmethod=%s\n\treal path=%s\n\tquery=%s\n\trequest_version=%d.%d\n\trequest_uri=%s\n",
		clientAddress(r), r.Method, r.URL.RequestURI(), r.URL.RawQuery, r.ProtoMajor, r.ProtoMinor, requestURI(r))
	fmt.Fprint(&out, "\nRequest Headers:\n")
	headers := headersOf(r)
	for _, k := range slices.Sorted(maps.Keys(headers)) {
		fmt.Fprintf(&out, "\t%s=%s\n", k, headers[k])
	}
	fmt.Fprint(&out, "\nRequest Body:\n")
	if len(body) == 0 {
		body = []byte("\t-no body in request-")
	}
	out.Write(body)
	out.WriteString("\n\n")
	w.Header().Set("Content-Type", "text/plain")
	w.Write(out.Bytes())
}

// writePod tells what the downward API put into the environment.
func writePod(w io.Writer) {
	known := false
	for _, v := range []struct{ env, label string }{
		{"NODE_NAME", "node name"}, {"POD_NAME", "pod name"}, {"POD_NAMESPACE", "pod namespace"}, {"POD_IP", "pod IP"},
	} {
		if s := os.Getenv(v.env); s != "" {
			fmt.Fprintf(w, "\t%s:\t%s\n", v.label, s)
			known = true
		}
	}
	if !known {
		fmt.Fprint(w, "\t-no pod information available-\n")
	}
}

// clientAddress is the peer's IP as the socket has it: no header can change it.
func clientAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// requestURI is the URL as the client would write it, with the port of this
// server: a Service in front usually has another one.
func requestURI(r *http.Request) string {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		if _, port, err := net.SplitHostPort(local.String()); err == nil {
			host = net.JoinHostPort(host, port)
		}
	}
	return "http://" + host + r.URL.RequestURI()
}

// headersOf is every header in lower case, Host included, repeated ones joined.
func headersOf(r *http.Request) map[string]string {
	headers := map[string]string{"host": r.Host}
	for k, v := range r.Header {
		headers[strings.ToLower(k)] = strings.Join(v, ", ")
	}
	return headers
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		name = os.Getenv("HOSTNAME")
	}
	return cmp.Or(name, "unknown")
}
