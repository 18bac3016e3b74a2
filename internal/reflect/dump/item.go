package dump

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/yaml"

	"github.com/zonewise/zonewise/api/v1alpha1"
	"github.com/zonewise/zonewise/internal/model"
	"github.com/zonewise/zonewise/internal/reflect"
)

// object is what became of one object's text.
type object struct {
	identity
	at      place
	what    string
	row     any    // nil: nothing that we keep
	unknown string // its kind, if we do not need that
	notes   []Note
}

func (o *object) note(field, format string, args ...any) {
	o.notes = append(o.notes, Note{Field: field, Message: fmt.Sprintf(format, args...)}) // named by add: the name may not be known yet
}

// place is where an object stands in the input: the item, and the object within a nested list.
type place struct{ item, index int }

// decode reads an item: an object, or a list that could not be cut.
func decode(i item) []object {
	top := object{what: i.what, at: place{item: i.seq}}
	text := i.text
	if i.yaml {
		top.identity = kindOf(i.text)
		var err error
		if text, err = top.toJSON(i.text); err != nil {
			top.note("", "%v", err)
			return []object{top}
		}
	}
	members, err := list(text)
	if err != nil {
		top.note("", "%v", err)
		return []object{top}
	}
	if members == nil {
		top.read(text, i.kind)
		return []object{top}
	}
	out := []object{}
	for n, m := range members {
		o := object{what: fmt.Sprintf("%s, member %d", i.what, n+1), at: place{i.seq, n}}
		o.read(m, "")
		out = append(out, o)
	}
	return append(out, object{what: i.what, notes: top.notes})
}

// list returns the members of an array or of a List, nil for anything else.
func list(text []byte) ([]json.RawMessage, error) {
	text = bytes.TrimSpace(text)
	out := []json.RawMessage{}
	if len(text) > 0 && text[0] == '[' {
		return out, json.Unmarshal(text, &out)
	}
	if !bytes.Contains(text, []byte(`"items"`)) {
		return nil, nil
	}
	var l struct {
		APIVersion, Kind string
		Items            []json.RawMessage
	}
	if err := json.Unmarshal(text, &l); err != nil || l.APIVersion != "v1" || l.Kind != "List" {
		return nil, nil //nolint:nilerr // no list then; who reads it as an object will tell
	}
	return append(out, l.Items...), nil
}

// toJSON notes numbers that JSON has not, and takes them out.
func (o *object) toJSON(text []byte) ([]byte, error) {
	if out, ok := blockJSON(text); ok {
		return out, nil
	}
	out, err := yaml.YAMLToJSON(text)
	if err == nil {
		return out, nil
	}
	var unsupported *json.UnsupportedValueError
	if !errors.As(err, &unsupported) {
		return nil, err
	}
	clean := bytes.Clone(text)
	walk(text, func(path, value string, line []byte) {
		switch strings.ToLower(strings.TrimLeft(value, "+-")) {
		case ".nan", ".inf":
			o.note(path, "%s is no number to plan with", value)
			clean = bytes.Replace(clean, line, bytes.Replace(line, []byte(value), []byte("null"), 1), 1)
		}
	})
	return yaml.YAMLToJSON(clean)
}

// read reads one object's JSON.
func (o *object) read(text []byte, kind string) {
	var head struct {
		APIVersion, Kind string
		Metadata         struct{ Namespace, Name string }
	}
	if bytes.Equal(bytes.TrimSpace(text), []byte("null")) {
		return
	}
	if err := json.Unmarshal(text, &head); err != nil && head.Kind == "" && kind == "" {
		o.note("", "no Kubernetes object: %v", err)
		return
	}
	if head.Kind == "" {
		head.APIVersion, head.Kind, _ = strings.Cut(kind, " ")
	}
	o.identity = identity{head.APIVersion, head.Kind, head.Metadata.Namespace, head.Metadata.Name}
	if head.Kind == "" {
		o.note("kind", "missing: no Kubernetes object")
		return
	}
	reader, known := readers()[head.APIVersion+" "+head.Kind]
	if !known {
		o.unknown = strings.TrimSpace(head.APIVersion + " " + head.Kind)
		return
	}
	if head.Metadata.Name == "" {
		o.note("metadata.name", "missing")
		return
	}
	reader(o, text)
}

// readers are by apiVersion and kind.
func readers() map[string]func(*object, []byte) {
	return map[string]func(*object, []byte){
		"v1 Node":                           (*object).readNode,
		"v1 Service":                        (*object).readService,
		"v1 Pod":                            (*object).readPod,
		"v1 Namespace":                      (*object).readNamespace,
		"discovery.k8s.io/v1 EndpointSlice": (*object).readSlice,
		v1alpha1.GroupVersion.String() + " ZoneRoute": (*object).readRoute,
	}
}

// into fills a Kubernetes object. A field of a wrong type is noted and left empty, all others are
// read; false means that nothing of the object can be used.
func (o *object) into(text []byte, k any) bool {
	err := json.Unmarshal(text, k)
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil:
		return true
	case errors.As(err, &wrong):
		o.note(wrong.Field, "%s where %s belongs", wrong.Value, wrong.Type)
		return true
	}
	o.note("", "%v: left out", err)
	return false
}

func (o *object) readNode(text []byte) {
	var n corev1.Node
	if !o.into(text, &n) {
		return
	}
	row, _ := reflect.Node(&n)
	if row.Zone == "" {
		o.note("metadata.labels["+corev1.LabelTopologyZone+"]", "missing: its clients and endpoints are in no zone")
	}
	if row.MilliCPU == 0 && !row.ControlPlane {
		o.note("status.allocatable.cpu", "missing: it adds nothing to the demand of its zone")
	}
	o.row = row
}

func (o *object) readService(text []byte) {
	var s corev1.Service
	if !o.into(text, &s) {
		return
	}
	s.Namespace = o.inNamespace()
	row, ok := reflect.Service(&s)
	out := served{Service: row}
	if !ok {
		out.Name, out.why = model.Name{Namespace: s.Namespace, Name: s.Name}, reflect.Unserved(&s)
		if out.why == "" {
			out.why = "it has no address, or another proxy serves it"
		}
	}
	o.row = out
}

func (o *object) readSlice(text []byte) {
	var s discoveryv1.EndpointSlice
	if !o.into(text, &s) {
		return
	}
	s.Namespace = o.inNamespace()
	row, ok := reflect.Slice(&s)
	if !ok {
		return
	}
	if lost := len(s.Endpoints) - len(row.Endpoints); lost > 0 {
		o.note("endpoints[].addresses", "%d of %d endpoints have no address of type %s: left out", lost, len(s.Endpoints), s.AddressType)
	}
	o.without(row, "zone", func(e model.Endpoint) string { return e.Zone })
	o.without(row, "nodeName", func(e model.Endpoint) string { return e.Node })
	o.row = row
}

// without notes how many endpoints lack something: one note for a slice, which may have thousands.
func (o *object) without(s model.Slice, field string, of func(model.Endpoint) string) {
	n, example := 0, ""
	for _, e := range s.Endpoints {
		if of(e) == "" {
			if n == 0 {
				example = e.Addr.String()
			}
			n++
		}
	}
	if n > 0 {
		o.note("endpoints[]."+field, "missing at %d of %d endpoints, first at %s", n, len(s.Endpoints), example)
	}
}

func (o *object) readPod(text []byte) {
	var p leanPod
	if !o.into(text, &p) {
		return
	}
	full := p.pod()
	full.Namespace = o.inNamespace()
	if row, ok := reflect.Pod(full); ok {
		o.row = row
	}
}

func (o *object) readNamespace(text []byte) {
	var n corev1.Namespace
	if !o.into(text, &n) {
		return
	}
	mode, ok := n.Labels[v1alpha1.LabelMode]
	if !ok {
		return
	}
	switch model.Mode(mode) {
	case model.Optimal, model.Observe, model.Off:
		o.row = space{n.Name, mode}
	default:
		o.note("metadata.labels["+v1alpha1.LabelMode+"]", "%q is none of Optimal, Observe, Off: it counts as not set", mode)
	}
}

func (o *object) readRoute(text []byte) {
	var zr v1alpha1.ZoneRoute
	if !o.into(text, &zr) {
		zr = v1alpha1.ZoneRoute{}
		zr.Name = o.object
	}
	zr.Namespace = o.inNamespace()
	row := reflect.Route(&zr)
	if len(o.notes) == 0 && row.Invalid != "" {
		field, message, _ := strings.Cut(row.Invalid, ": ")
		o.note(field, "%s", message)
	}
	for i, n := range o.notes {
		if n.Field == "spec.mode" {
			o.notes[i].Message += `; YAML takes Off without quotes for false`
		}
	}
	if len(o.notes) > 0 { // what could not be read must not be taken for a default
		row.Invalid = strings.TrimPrefix(o.notes[0].Field+": "+o.notes[0].Message, ": ")
	}
	o.row = row
}

// inNamespace is where kubectl puts what names no namespace.
func (o *object) inNamespace() string {
	if o.namespace == "" {
		o.namespace = corev1.NamespaceDefault
	}
	return o.namespace
}

// leanPod is the small part of a pod that we read: pods are most of a dump.
type leanPod struct {
	Metadata struct{ Name string }
	Spec     struct {
		NodeName       string
		Containers     []leanContainer
		InitContainers []leanContainer
		Resources      *corev1.ResourceRequirements
	}
	Status struct{ Phase corev1.PodPhase }
}

type leanContainer struct {
	Resources struct{ Requests corev1.ResourceList }
	// RestartPolicy makes an init container a sidecar.
	RestartPolicy *corev1.ContainerRestartPolicy
}

func (p *leanPod) pod() *corev1.Pod {
	out := &corev1.Pod{}
	out.Name, out.Spec.NodeName, out.Status.Phase, out.Spec.Resources = p.Metadata.Name, p.Spec.NodeName, p.Status.Phase, p.Spec.Resources
	containers := func(in []leanContainer) (out []corev1.Container) {
		for _, c := range in {
			out = append(out, corev1.Container{RestartPolicy: c.RestartPolicy, Resources: corev1.ResourceRequirements{Requests: c.Resources.Requests}})
		}
		return out
	}
	out.Spec.Containers, out.Spec.InitContainers = containers(p.Spec.Containers), containers(p.Spec.InitContainers)
	return out
}
