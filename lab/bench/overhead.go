package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/zonewise/zonewise/lab/bench/driver"
	"github.com/zonewise/zonewise/lab/rig/peer"
)

// The figures of the harness.
const (
	clockTwice  = "two readings of the clock"
	openAndEnd  = "a socket opened and closed"
	closedPort  = "connect to a closed port of the same namespace"
	readAll     = "reading all objects from the API server"
	eventToRead = "event to a client that only reads"
)

// overhead is what the measuring itself takes: what every figure of the other benchmarks contains.
func overhead() benchmark {
	return benchmark{
		name: "harness", what: "what the measuring itself takes",
		loads: func(e effort) []load { return pairs(e.sizes[max(0, len(e.sizes)-1):]) }, alone: true,
		peers: func(k peer.Kind) bool { return k == harness }, most: 3,
		cost: func(_ *run, l load, rounds, _ int) time.Duration {
			return time.Second + time.Duration(rounds*l.Services)*15*time.Microsecond
		},
		metrics: func(effort, load) []metric {
			return []metric{{clockTwice, "µs"}, {openAndEnd, "µs"}, {closedPort, "µs"}, {readAll, "s"}, {eventToRead, "ms"}}
		},
		run: func(r *run, s *stage) (err error) {
			n, err := newNode(peer.Direct, s.load, s.snapshot, r.cpus)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, n.close()) }()
			return errors.Join(r.probeOverhead(s, n), r.readOverhead(s, n))
		},
	}
}

func (r *run) probeOverhead(s *stage, n *node) error {
	closed := netip.MustParseAddrPort("127.0.0.1:9")
	for range s.benchmark.roundsOf(r.Rounds) {
		for name, task := range map[string]driver.Task{clockTwice: driver.Clock, openAndEnd: driver.Socket, closedPort: driver.Connect} {
			reply, err := n.do(inPod, driver.Job{Task: task, Count: r.connects, Targets: []netip.AddrPort{closed}})
			if err != nil {
				return err
			}
			r.record.add(s.key(harness, name), "µs", micro(reply.Samples)...)
		}
	}
	return nil
}

// readOverhead reads as a client does that makes nothing of what it reads.
func (r *run) readOverhead(s *stage, n *node) error {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (c net.Conn, err error) {
		err = n.world.Node.Do(func() error {
			c, err = (&net.Dialer{}).DialContext(ctx, network, address)
			return err
		})
		return c, err
	}}}
	defer client.CloseIdleConnections()
	for range s.benchmark.roundsOf(r.Rounds) {
		r.tidy()
		begin := time.Now()
		services, err := watch(client, n.url+"/api/v1/services")
		if err != nil {
			return err
		}
		slices, err := watch(client, n.url+"/apis/discovery.k8s.io/v1/endpointslices")
		if err != nil {
			return err
		}
		// All objects, and the bookmark that ends them.
		specials := len(specials())
		err = errors.Join(services.skip(s.load.Services+specials+1), slices.skip(s.load.Services*((s.load.Endpoints+perSlice-1)/perSlice)+specials+1))
		r.record.add(s.key(harness, readAll), "s", time.Since(begin).Seconds())
		for range r.flips {
			if err != nil {
				break
			}
			var written time.Duration
			read := make(chan error, 1)
			var at time.Duration
			go func() {
				err := slices.skip(1)
				at = driver.Now()
				read <- err
			}()
			written, err = n.set(probe())
			err = errors.Join(err, <-read)
			r.record.add(s.key(harness, eventToRead), "ms", milli(at-written))
		}
		if err = errors.Join(err, services.Close(), slices.Close()); err != nil {
			return err
		}
	}
	return nil
}

// frames reads a watch frame by frame, without a look inside.
type frames struct {
	io.Closer
	in *bufio.Reader
}

func watch(client *http.Client, url string) (*frames, error) {
	request, err := http.NewRequest(http.MethodGet, url+"?watch=true&sendInitialEvents=true&allowWatchBookmarks=true", nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", runtime.ContentTypeProtobuf)
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("%s: %s", url, response.Status), response.Body.Close())
	}
	return &frames{response.Body, bufio.NewReaderSize(response.Body, 1<<18)}, nil
}

func (f *frames) skip(n int) error {
	for range n {
		var length [4]byte // each frame's, as framer.NewLengthDelimitedFrameWriter writes it
		if _, err := io.ReadFull(f.in, length[:]); err != nil {
			return err
		}
		if _, err := f.in.Discard(int(binary.BigEndian.Uint32(length[:]))); err != nil {
			return err
		}
	}
	return nil
}
