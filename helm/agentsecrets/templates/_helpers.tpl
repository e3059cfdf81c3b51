{{- define "agentsecrets.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "agentsecrets.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "agentsecrets.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "agentsecrets.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "agentsecrets.selector" -}}
app.kubernetes.io/name: {{ include "agentsecrets.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "agentsecrets.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "agentsecrets.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "agentsecrets.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "agentsecrets.configMap" -}}
{{- .Values.policy.existingConfigMap | default (include "agentsecrets.fullname" .) -}}
{{- end -}}

{{- /* The files that agents trust, and the variables that lead common clients to them: the same ones as
       `agentsecrets run` sets. */ -}}
{{- define "agentsecrets.roots" -}}
AWS_CA_BUNDLE BUNDLE_SSL_CA_CERT CARGO_HTTP_CAINFO CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE COMPOSER_CAFILE CURL_CA_BUNDLE GIT_SSL_CAINFO GRPC_DEFAULT_SSL_ROOTS_FILE_PATH HEX_CACERTS_PATH HTTPLIB2_CA_CERTS JULIA_SSL_CA_ROOTS_PATH NIX_SSL_CERT_FILE PERL_LWP_SSL_CA_FILE PIP_CERT REQUESTS_CA_BUNDLE SSL_CERT_FILE SYSTEM_CERTIFICATE_PATH WEBSOCKET_CLIENT_CA_BUNDLE npm_config_cafile
{{- end -}}

{{- define "agentsecrets.addedRoots" -}}
DENO_CERT NODE_EXTRA_CA_CERTS
{{- end -}}

{{- /* What is newer than a release whose values are used again has its default here. */ -}}
{{- define "agentsecrets.capture" -}}
{{- .Values.capture | default "ebpf" -}}
{{- end -}}

{{- /* Capabilities that reach past the hooks or the rules, or into the sidecar: those that the webhook refuses. */ -}}
{{- define "agentsecrets.dangerous" -}}
['ALL', 'BPF', 'CHECKPOINT_RESTORE', 'DAC_OVERRIDE', 'DAC_READ_SEARCH', 'MKNOD', 'NET_ADMIN', 'NET_RAW', 'PERFMON', 'SETPCAP', 'SETUID', 'SETGID', 'SYS_ADMIN', 'SYS_BOOT', 'SYS_CHROOT', 'SYS_MODULE', 'SYS_PTRACE', 'SYS_RAWIO']
{{- end -}}

{{- /* The name of what belongs to no namespace: releases of the same name may stand in several. */ -}}
{{- define "agentsecrets.clusterName" -}}
{{- printf "%s-injector-%s" (include "agentsecrets.fullname" .) (default "default" .Release.Namespace) | trunc 253 -}}
{{- end -}}

{{- /* Where the sidecar finds the Workload API, if it asks one. */ -}}
{{- define "agentsecrets.workloadApi" -}}
{{- with .Values.spiffe | default dict }}{{ if .enabled }}/spiffe-workload-api/{{ .socket }}{{ end }}{{ end -}}
{{- end -}}

{{- /* What a service does with its audit log beside keeping it, as arguments. */ -}}
{{- define "agentsecrets.streamed" -}}
{{- with (.Values.audit | default dict).to }}
- {{ printf "--audit-to=%s" . | quote }}
{{- end }}
{{- with int (.Values.metrics | default dict).port }}
- --metrics=0.0.0.0:{{ . }}
{{- end }}
{{- end -}}
