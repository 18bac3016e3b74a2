package bpf

import (
	"errors"
	"fmt"

	"github.com/zonewise/zonewise/internal/kernel/netns"
	"github.com/zonewise/zonewise/internal/kernel/sockets"
)

// meetElders notes what the sockets dialled that the socket path led before we counted: their first
// packets are gone. Those are told that are connected; others choose anew soon, and are told then.
func (c *Counter) meetElders() error {
	places := map[uint64]socketPlace{}
	m := c.objects.Maps[objectMapPlaces]
	if err := each(m, m.MaxEntries(), func(_ uint32, p *socketPlace) {
		if p.Cookie != 0 {
			places[p.Cookie] = *p
		}
	}); err != nil {
		return err
	}
	if len(places) == 0 {
		return nil
	}
	note := func() error {
		all, err := sockets.Connected()
		if err != nil {
			return err
		}
		for _, s := range all {
			p, led := places[s.Cookie]
			if !led || p.Endpoint.addrPort() != s.Peer {
				continue
			}
			whose := (&ends{s.Local, s.Peer, s.Protocol}).stir()
			f := frontOf(p.Service.addrPort(), whose)
			if err := c.objects.Maps[objectMapDialled].Put(uint32(whose%dialledPlaces), &f); err != nil {
				return fmt.Errorf("dialled: %w", err)
			}
		}
		return nil
	}
	return errors.Join(note(), c.inPods(note))
}

// inPods does something in the network namespace of each pod.
func (c *Counter) inPods(f func() error) error {
	if c.options.Namespaces == "" {
		return nil
	}
	return netns.Each(c.options.Namespaces, f)
}
