package metering

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/zonewise/zonewise/internal/meter"
)

// Owners is the name of the file with those who have the addresses that are counted by. A pod that goes while no
// agent runs is in no list that the next one gets, and what it sent until then is still to be told.
const Owners = "meter.owners"

// memory keeps owners for the next agent.
type memory struct {
	path string
	last []byte
}

// kept is the file. Instants are since boot.
type kept struct {
	Boot   string
	Owners []meter.Tenure
}

// keep writes what there is, if it is not there already.
func (m *memory) keep(boot string, owners []meter.Tenure) error {
	data, err := json.Marshal(kept{boot, owners})
	if err != nil || bytes.Equal(data, m.last) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(m.path), 0o700); err != nil {
		return fmt.Errorf("owners: %w", err)
	}
	if err := os.WriteFile(m.path+".tmp", data, 0o600); err != nil {
		return fmt.Errorf("owners: %w", err)
	}
	if err := os.Rename(m.path+".tmp", m.path); err != nil {
		return fmt.Errorf("owners: %w", err)
	}
	m.last = data
	return nil
}

// recall returns what an earlier agent kept since the machine booted.
func (m *memory) recall(boot string) ([]meter.Tenure, error) {
	data, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var k kept
	if err == nil {
		err = json.Unmarshal(data, &k)
	}
	if err != nil {
		return nil, fmt.Errorf("owners: %w", err)
	}
	if k.Boot != boot {
		return nil, nil
	}
	return k.Owners, nil
}

// counted are the addresses of a reading.
func counted(r meter.Reading) map[netip.Addr]bool {
	out := make(map[netip.Addr]bool, 2*len(r.Totals))
	for k := range r.Totals {
		out[k.Client], out[k.Server.Addr()] = true, true
	}
	return out
}
