package install

import (
	"context"
	"io/fs"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsinstall "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	"github.com/zonewise/zonewise/deploy/helm"
)

// crd is the definition of ZoneRoutes as an API server takes it from the chart.
func crd(t *testing.T) *apiextensions.CustomResourceDefinition {
	t.Helper()
	text, err := fs.ReadFile(helm.Chart, "zonewise/crds/zonewise.io_zoneroutes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var given apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(text, &given); err != nil {
		t.Fatal(err)
	}
	given.Status.StoredVersions = []string{"v1alpha1"} // as the API server's own strategy does
	scheme := runtime.NewScheme()
	apiextensionsinstall.Install(scheme)
	scheme.Default(&given)
	out := new(apiextensions.CustomResourceDefinition)
	if err := scheme.Convert(&given, out, nil); err != nil {
		t.Fatal(err)
	}
	return out
}

// The API server's own validation accepts the definition: its schema is structural, its rules
// compile, and none may cost too much.
func TestTheDefinitionIsAccepted(t *testing.T) {
	definition := crd(t)
	if errs := crdvalidation.ValidateCustomResourceDefinition(t.Context(), definition); len(errs) > 0 {
		t.Fatal(errs.ToAggregate())
	}
	var columns []string
	for _, c := range definition.Spec.AdditionalPrinterColumns { // at the top where there is one version
		columns = append(columns, c.Name)
	}
	want := "Mode In-Zone Planned Max-Load USD/Month Reason Age"
	if got := strings.Join(columns, " "); got != want {
		t.Errorf("columns %q, want %q", got, want)
	}
}

// What nobody can mean is turned away, with the field that is to blame.
func TestZoneRoutesAreValidated(t *testing.T) {
	definition := crd(t)
	schema := definition.Spec.Validation // at the top where there is one version
	structural, err := structuralschema.NewStructural(schema.OpenAPIV3Schema)
	if err != nil {
		t.Fatal(err)
	}
	validator, _, err := validation.NewSchemaValidator(schema.OpenAPIV3Schema)
	if err != nil {
		t.Fatal(err)
	}
	rules := cel.NewValidator(structural, true, celconfig.PerCallLimit)
	var cost int64
	validate := func(ctx context.Context, spec string) field.ErrorList {
		object := map[string]any{}
		text := "apiVersion: zonewise.io/v1alpha1\nkind: ZoneRoute\nmetadata: {name: web, namespace: shop}\nspec: " + spec
		data, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		// As the API server reads it: whole numbers are int64, which minimum: 0.01 lets be 0.
		if err := json.Unmarshal(data, &object); err != nil {
			t.Fatal(err)
		}
		errs := validation.ValidateCustomResource(nil, object, validator)
		errs = append(errs, listtype.ValidateListSetsAndMaps(nil, structural, object)...)
		more, left := rules.Validate(ctx, nil, structural, object, nil, celconfig.RuntimeCELCostBudget)
		cost = max(cost, celconfig.RuntimeCELCostBudget-left)
		return append(errs, more...)
	}
	many := "{demand: {source: Static, shares: [" + strings.TrimSuffix(strings.Repeat("{zone: z#, share: 0}, ", 63), ", ") + ", {zone: last, share: 1}]}}"
	for n := range 63 {
		many = strings.Replace(many, "z#", "z"+strings.Repeat("x", n), 1)
	}
	for _, c := range []struct{ spec, want string }{
		{`{}`, ""},
		{`{mode: Optimal, maxOverload: 0.2, capacity: CPURequests, drainedZones: [a]}`, ""},
		{`{mode: "Off", demand: {source: NodeCPU, bytesPerSecond: 1e9}}`, ""},
		{`{demand: {source: Static, shares: [{zone: a, share: 0}, {zone: b, share: 0.5}]}}`, ""},
		{`{demand: {source: Static, shares: [{zone: a, share: 3}]}}`, ""},
		{`{maxOverload: 4}`, ""},
		{many, ""},
		{`{maxOverload: 0}`, "spec.maxOverload"},
		{`{maxOverload: 10}`, "spec.maxOverload"},
		{`{maxOverload: -1}`, "spec.maxOverload"},
		{`{maxOverload: "0.2"}`, "spec.maxOverload"},
		{`{mode: optimal}`, "spec.mode"},
		{`{mode: Off}`, "spec.mode"}, // YAML's false
		{`{capacity: Memory}`, "spec.capacity"},
		{`{drainedZones: [a, a]}`, "spec.drainedZones[1]"},
		{`{drainedZones: [""]}`, "spec.drainedZones[0]"},
		{`{demand: {source: Guessed}}`, "spec.demand.source"},
		{`{demand: {source: Static}}`, "spec.demand"},
		{`{demand: {shares: [{zone: a, share: 1}]}}`, "spec.demand"},
		{`{demand: {source: NodeCPU, shares: [{zone: a, share: 1}]}}`, "spec.demand"},
		{`{demand: {source: Static, shares: []}}`, "spec.demand.shares"},
		{`{demand: {source: Static, shares: [{zone: a, share: 1}, {zone: a, share: 2}]}}`, "spec.demand.shares[1]"},
		{`{demand: {source: Static, shares: [{zone: a, share: -1}, {zone: b, share: 2}]}}`, "spec.demand.shares[0].share"},
		{`{demand: {source: Static, shares: [{zone: a, share: 0}]}}`, "spec.demand.shares"},
		{`{demand: {source: Static, shares: [{zone: "", share: 1}]}}`, "spec.demand.shares[0].zone"},
		{`{demand: {source: Static, shares: [{share: 1}]}}`, "spec.demand.shares[0].zone"},
		{`{demand: {bytesPerSecond: -1}}`, "spec.demand.bytesPerSecond"},
	} {
		errs := validate(t.Context(), c.spec)
		if c.want == "" {
			if len(errs) > 0 {
				t.Errorf("%s: %v", c.spec, errs.ToAggregate())
			}
			continue
		}
		named := false
		for _, e := range errs {
			named = named || e.Field == c.want
		}
		if !named {
			t.Errorf("%s: %v, want an error of %s", c.spec, errs.ToAggregate(), c.want)
		}
	}
	if cost > celconfig.RuntimeCELCostBudget/1000 {
		t.Errorf("the rules cost %d of %d", cost, celconfig.RuntimeCELCostBudget)
	}
}
