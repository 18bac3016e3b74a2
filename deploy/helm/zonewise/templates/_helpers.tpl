{{- define "zonewise.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Labels of an object of one component: include "zonewise.labels" (list . "agent") */}}
{{- define "zonewise.labels" -}}
{{- $root := index . 0 -}}
{{ include "zonewise.selector" . }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version }}
{{- end }}

{{/* What never changes, since selectors cannot; the command line finds the agents by it. */}}
{{- define "zonewise.selector" -}}
app.kubernetes.io/name: zonewise
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}
