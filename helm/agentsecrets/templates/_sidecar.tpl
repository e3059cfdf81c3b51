{{- /* The sidecar as it stands in a pod: what the injector puts into pods is the same text. */ -}}

{{- /* Which the policy behind the webhook asks for too. */ -}}
{{- define "agentsecrets.sidecar.args" -}}
- sidecar
- --capture={{ include "agentsecrets.capture" . }}
- --user={{ .Values.sidecar.user }}
{{- with include "agentsecrets.workloadApi" . }}
- --spiffe=unix://{{ . }}
{{- end }}
{{- include "agentsecrets.streamed" . }}
{{- end -}}

{{- define "agentsecrets.sidecar.initContainers" -}}
- name: agentsecrets
  image: {{ include "agentsecrets.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args:
    {{- include "agentsecrets.sidecar.args" . | nindent 4 }}
  {{- with int (.Values.metrics | default dict).port }}
  ports:
    - { name: metrics, containerPort: {{ . }} }
  {{- end }}
  # Started before every other container, and again whenever it ends.
  restartPolicy: Always
  securityContext:
    # Root loads the hooks or the rules; what reads traffic is another user, without any capability.
    runAsUser: 0
    runAsGroup: 0
    runAsNonRoot: false
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities:
      drop: [ALL]
      {{- if eq (include "agentsecrets.capture" .) "ebpf" }}
      add: [BPF, NET_ADMIN, PERFMON, SETGID, SETUID]
      {{- else }}
      add: [NET_ADMIN, SETGID, SETUID]
      {{- end }}
    seccompProfile:
      {{- toYaml (.Values.sidecar.seccompProfile | default (dict "type" "RuntimeDefault")) | nindent 6 }}
  # They are in force, and a packet past them was refused: only then do other containers start.
  startupProbe:
    exec:
      command: [/agentsecrets, health]
    {{- toYaml .Values.sidecar.startupProbe | nindent 4 }}
  readinessProbe:
    exec:
      command: [/agentsecrets, health]
    {{- toYaml .Values.sidecar.readinessProbe | nindent 4 }}
  {{- with .Values.sidecar.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    {{- if eq (include "agentsecrets.capture" .) "ebpf" }}
    - { name: agentsecrets-cgroup, mountPath: /host/cgroup, readOnly: true }
    - { name: agentsecrets-pins, mountPath: /host/bpf }
    {{- end }}
    - { name: agentsecrets-policy, mountPath: /config/agentsecrets, readOnly: true }
    - { name: agentsecrets-state, mountPath: /var/lib/agentsecrets }
    - { name: agentsecrets-public, mountPath: /run/agentsecrets/public }
    {{- if .Values.secrets.existingSecret }}
    - { name: agentsecrets-secrets, mountPath: /run/secrets, readOnly: true }
    {{- end }}
    {{- with include "agentsecrets.workloadApi" . }}
    - { name: agentsecrets-spiffe, mountPath: {{ dir . }}, readOnly: true }
    {{- end }}
{{- end -}}

{{- define "agentsecrets.sidecar.volumes" -}}
{{- if eq (include "agentsecrets.capture" .) "ebpf" }}
- name: agentsecrets-cgroup
  hostPath: { path: {{ .Values.sidecar.cgroup | quote }}, type: Directory }
- name: agentsecrets-pins
  hostPath: { path: {{ .Values.sidecar.pins | quote }}, type: DirectoryOrCreate }
{{- end }}
- name: agentsecrets-policy
  configMap: { name: {{ include "agentsecrets.configMap" . | quote }} }
- name: agentsecrets-state
  emptyDir: { sizeLimit: 256Mi }
- name: agentsecrets-public
  emptyDir: { sizeLimit: 8Mi }
{{- with .Values.secrets.existingSecret }}
- name: agentsecrets-secrets
  secret: { secretName: {{ . | quote }}, defaultMode: 292 }
{{- end }}
{{- if include "agentsecrets.workloadApi" . }}
- name: agentsecrets-spiffe
  csi: { driver: {{ .Values.spiffe.driver | quote }}, readOnly: true }
{{- end }}
{{- end -}}

{{- define "agentsecrets.sidecar.env" -}}
{{- range splitList " " (include "agentsecrets.roots" .) }}
- { name: {{ . }}, value: /run/agentsecrets/public/bundle.pem }
{{- end }}
{{- range splitList " " (include "agentsecrets.addedRoots" .) }}
- { name: {{ . }}, value: /run/agentsecrets/public/ca.pem }
{{- end }}
{{- range .Values.secrets.names }}
- { name: {{ . | quote }}, value: {{ printf "AS_SECRET_%s" . | quote }} }
{{- end }}
{{- end -}}

{{- define "agentsecrets.sidecar.volumeMounts" -}}
- { name: agentsecrets-public, mountPath: /run/agentsecrets/public, readOnly: true }
{{- end -}}
