{{- define "pilothouse.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "pilothouse.labels" -}}
app.kubernetes.io/name: pilothouse
app.kubernetes.io/part-of: pilothouse
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "pilothouse.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.podSecurity.runAsUser }}
runAsGroup: {{ .Values.podSecurity.runAsGroup }}
fsGroup: {{ .Values.podSecurity.runAsGroup }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "pilothouse.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "pilothouse.podEnv" -}}
- name: POD_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- end }}

{{- define "pilothouse.dnsEgress" -}}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: kube-system
  ports:
    - protocol: UDP
      port: 53
    - protocol: TCP
      port: 53
{{- end }}

{{- define "pilothouse.commonEgress" -}}
{{ include "pilothouse.dnsEgress" . }}
# The API server: its address is the cluster's own matter.
- ports:
    {{- range .Values.networkPolicy.apiServerPorts }}
    - protocol: TCP
      port: {{ . }}
    {{- end }}
# The tenants' workers, in whatever namespace.
- to:
    - namespaceSelector: {}
      podSelector:
        matchLabels:
          app.kubernetes.io/component: worker
  ports:
    - protocol: TCP
      port: 9090
{{- end }}

{{- define "pilothouse.migratePod" -}}
metadata:
  labels:
    {{- include "pilothouse.labels" . | nindent 4 }}
    app.kubernetes.io/component: migrate
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false
  restartPolicy: OnFailure
  securityContext:
    {{- include "pilothouse.podSecurity" . | nindent 4 }}
  containers:
    - name: migrate
      image: {{ include "pilothouse.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command: [python, -m, pilothouse_dataplane.ledger.migrate]
      env:
        - name: PILOTHOUSE_DATABASE_URL
          valueFrom:
            secretKeyRef:
              name: {{ .Values.stores.secretName }}
              key: database-owner-url
        - name: PILOTHOUSE_WORKER_DATABASE_PASSWORD
          valueFrom:
            secretKeyRef:
              name: {{ .Values.stores.secretName }}
              key: database-worker-password
              optional: true
      resources:
        {{- toYaml .Values.migrate.resources | nindent 8 }}
      securityContext:
        {{- include "pilothouse.containerSecurity" . | nindent 8 }}
  {{- with .Values.migrate.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.migrate.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
