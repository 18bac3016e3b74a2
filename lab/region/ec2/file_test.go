package ec2

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestStateSurvives(t *testing.T) {
	file := filepath.Join(t.TempDir(), "region.json")
	r := newRegion(t, Options{File: file, AttachTime: 2 * time.Second})
	n := r.create(subnetA, 3)
	if _, err := r.Attach(r.a.ID, n.ID, 1, 0); err != nil {
		t.Fatal(err)
	}
	before := r.Records()
	again, err := Open(blueprint(), Options{File: file, Now: func() time.Time { return r.clock.now }, After: r.after})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(again.Delivery(), r.Delivery()) {
		t.Error("delivers something else after a restart")
	}
	if again.Records().Credentials != before.Credentials || again.Records().Role != before.Role {
		t.Error("keys changed")
	}
	changes := again.Changes()
	<-changes
	r.move(2 * time.Second)
	select {
	case <-changes:
	default:
		t.Error("an attachment that was under way does not end after a restart")
	}
	if i, err := again.Launch(Launch{Node: "a1", Type: "t3.medium", Subnet: subnetA, Address: r.primary(r.a).Primary()}); err != nil || i.ID != r.a.ID {
		t.Errorf("launched again: %v, %v", i, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file holds keys, and is for its owner alone: %v, %v", info.Mode(), err)
	}
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), "*"))
	if len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestFileFromElsewhere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "region.json")
	r := newRegion(t, Options{File: file})
	r.create(subnetA, 1)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	swap := func(from, to string) []byte {
		text := strings.Replace(string(good), from, to, 1)
		if text == string(good) {
			t.Fatalf("the file has no %q", from)
		}
		return []byte(text)
	}
	other := blueprint()
	other.Region = "eu-central-1"
	for name, c := range map[string]struct {
		data      []byte
		blueprint Blueprint
		want      string
	}{
		"cut off":        {good[:len(good)/2], blueprint(), "unexpected end of JSON input"},
		"empty":          {nil, blueprint(), "unexpected end of JSON input"},
		"later version":  {swap("zonewise.region/v1", "zonewise.region/v9"), blueprint(), `schema is "zonewise.region/v9"`},
		"no subnet":      {swap(`"Subnets"`, `"Nothing"`), blueprint(), "no subnet"},
		"two owners":     {swap(`"192.168.1.5"`, `"192.168.1.10"`), blueprint(), "both have 192.168.1.10"},
		"bad address":    {swap(`"192.168.1.5"`, `"192.168.1.500"`), blueprint(), "192.168.1.500"},
		"other subnet":   {swap(`"192.168.1.5"`, `"192.168.9.5"`), blueprint(), "is not in subnet"},
		"unknown type":   {swap(`"t3.small"`, `"t9.small"`), blueprint(), "t9.small"},
		"another region": {good, other, "is ap-northeast-2"},
	} {
		if err := os.WriteFile(file, c.data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(c.blueprint, Options{File: file})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "take the lab down") {
			t.Errorf("%s: %v: names neither %q, nor the file, nor the mend", name, err, c.want)
		}
	}
}

func TestWhatCannotBeWrittenIsNotDone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lab")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r := newRegion(t, Options{File: filepath.Join(dir, "region.json")})
	before := r.Records()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := r.CreateInterface(NewInterface{Subnet: r.subnet(subnetA)}); err == nil {
		t.Error("an interface that nobody wrote down")
	}
	if !reflect.DeepEqual(r.Records(), before) {
		t.Error("the records changed")
	}
}

func FuzzFile(f *testing.F) {
	r := newRegion(f, Options{})
	data, err := encode(r.Records())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parse(data)
		if err != nil {
			return
		}
		r.Delivery(time.Time{}) // what was let in can be worked with
		for _, s := range r.Subnets {
			r.FreeAddresses(s)
		}
	})
}
