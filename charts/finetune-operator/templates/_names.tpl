{{- define "finetune-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* Room is left for suffixes such as -metrics. */}}
{{- define "finetune-operator.fullname" -}}
{{- $name := include "finetune-operator.name" . }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- default $full .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "finetune-operator.selector" -}}
app.kubernetes.io/name: {{ include "finetune-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "finetune-operator.labels" -}}
{{ include "finetune-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: finetune-operator
{{- end }}

{{- define "finetune-operator.metadata" -}}
name: {{ include "finetune-operator.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "finetune-operator.labels" . | nindent 2 }}
{{- end }}

{{- define "finetune-operator.serviceAccountName" -}}
{{- $own := ternary (include "finetune-operator.fullname" .) "default" .Values.serviceAccount.create }}
{{- default $own .Values.serviceAccount.name }}
{{- end }}

{{- /* Takes {image, root}. */}}
{{- define "finetune-operator.image" -}}
{{- $registry := .root.Values.imageRegistry | trimSuffix "/" }}
{{- $repository := list $registry .image.repository | compact | join "/" }}
{{- if .image.digest -}}
{{ $repository }}@{{ .image.digest }}
{{- else -}}
{{ $repository }}:{{ default .root.Chart.AppVersion .image.tag }}
{{- end }}
{{- end }}

{{- /* Variables of the trainers' proxy as a YAML mapping. */}}
{{- define "finetune-operator.proxy" -}}
{{- with .Values.trainer.proxy }}
{{- if or .http .https }}
{{- with .http }}
HTTP_PROXY: {{ . | quote }}
{{- end }}
{{- with .https }}
HTTPS_PROXY: {{ . | quote }}
{{- end }}
NO_PROXY: {{ list "localhost,127.0.0.1,.svc,.cluster.local" .noProxy | compact | join "," | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- /* FINETUNE_TRAINER_ENV: one JSON object. */}}
{{- define "finetune-operator.trainerEnv" -}}
{{- $proxy := include "finetune-operator.proxy" . | fromYaml }}
{{- $environment := merge dict .Values.trainer.env $proxy }}
{{- with .Values.trainer.hubEndpoint }}
{{- $environment = merge $environment (dict "HF_ENDPOINT" .) }}
{{- end }}
{{- toJson $environment }}
{{- end }}

{{- /* The generated rules of a scope. The Lease has the name of the installation. Takes {scopes, root}. */}}
{{- define "finetune-operator.rules" -}}
{{- $generated := .root.Files.Get "files/rbac.yaml" | fromYaml }}
{{- $rules := list }}
{{- range .scopes }}
{{- $rules = concat $rules (get $generated .) }}
{{- end }}
{{- $rules | toYaml | replace "finetune-operator" (include "finetune-operator.fullname" .root) }}
{{- end }}
