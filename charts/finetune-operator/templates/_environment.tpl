{{- /* The operator's environment: one variable for each of its settings. */}}
{{- define "finetune-operator.env" -}}
- name: FINETUNE_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: FINETUNE_POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- range $name, $text := include "finetune-operator.settings" . | fromYaml }}
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
{{- end }}
