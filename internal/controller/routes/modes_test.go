package routes

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/zonewise/zonewise/internal/model"
)

// A namespace that asks for a mode that there is not is told so, once for each.
func TestAModeThatThereIsNot(t *testing.T) {
	labelled := func(mode string) *corev1.Namespace {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"zonewise.io/mode": mode}}}
	}
	story(t, settings(model.Observe), []runtime.Object{labelled("Fast")}, func(w *world) {
		told := func(want string) {
			t.Helper()
			w.pass(time.Minute)
			if got := strings.Join(w.said(), "; "); got != want {
				t.Errorf("said %q, want %q", got, want)
			}
		}
		told(`Warning InvalidMode label zonewise.io/mode: "Fast" is ignored, for it is none of Optimal, Observe and Off`)
		for _, c := range []struct{ mode, want string }{
			{"Optimal", ""},
			{"optimal", `Warning InvalidMode label zonewise.io/mode: "optimal" is ignored, for it is none of Optimal, Observe and Off`},
		} {
			if _, err := w.api.CoreV1().Namespaces().Update(t.Context(), labelled(c.mode), metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			told(c.want)
		}
	})
}
