{{- /* The operator's environment: one variable for each of its settings. */}}
{{- define "finetune-operator.env" -}}
- name: FINETUNE_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: FINETUNE_POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- $proxy := dict "proxy" .Values.proxy "inside" "$(KUBERNETES_SERVICE_HOST)" }}
{{- $texts := include "finetune-operator.proxy" $proxy | fromYaml }}
{{- $texts = merge $texts (include "finetune-operator.settings" . | fromYaml) }}
{{- range $name, $text := $texts }}
{{- if and $text (ne $text "{}") }}
- name: {{ $name }}
  value: {{ $text | quote }}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "finetune-operator.settings" -}}
FINETUNE_TRAINER_IMAGE: {{ include "finetune-operator.image" (dict "image" .Values.trainer.image "root" .) }}
FINETUNE_IMAGE_PULL_POLICY: {{ .Values.trainer.image.pullPolicy }}
FINETUNE_IMAGE_PULL_SECRETS: {{ .Values.trainer.imagePullSecrets | join "," | quote }}
FINETUNE_TRAINER_ENV: {{ include "finetune-operator.trainerEnv" . | quote }}
FINETUNE_TRAINER_CA_CONFIG_MAP: {{ .Values.trainer.caConfigMap | quote }}
FINETUNE_WATCH_NAMESPACES: {{ .Values.watchNamespaces | join "," | quote }}
FINETUNE_LEASE_NAME: {{ include "finetune-operator.fullname" . }}
FINETUNE_LEADER_ELECTION: {{ .Values.leaderElection | quote }}
FINETUNE_WORKERS: {{ .Values.tuning.workers | quote }}
FINETUNE_PROGRESS_SECONDS: {{ .Values.tuning.progressSeconds | quote }}
FINETUNE_RETRY_BASE_SECONDS: {{ .Values.tuning.retryBaseSeconds | quote }}
FINETUNE_WATCH_STALE_SECONDS: {{ .Values.tuning.watchStaleSeconds | quote }}
FINETUNE_LOG_LEVEL: {{ .Values.logLevel }}
{{- if .Values.caConfigMap }}
SSL_CERT_FILE: /etc/finetune/ca/ca.crt
{{- end }}
{{- end }}
