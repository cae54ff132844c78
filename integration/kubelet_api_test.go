package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// api is as much of a Kubernetes API server as one kubelet needs to have pods, and to
// say what became of them and of its node. It has no etcd, no users and one namespace.
type api struct {
	url string

	mu       sync.Mutex
	version  int
	node     object
	pods     map[string]object
	watchers map[chan []byte]string // what they watch: the kind of list
}

// object is an object of the API.
type object = map[string]any

func startAPI(t testing.TB) *api {
	t.Helper()
	a := &api{pods: make(map[string]object), watchers: make(map[chan []byte]string)}
	server := httptest.NewServer(a)
	t.Cleanup(func() {
		server.CloseClientConnections() // watches do not end
		server.Close()
	})
	a.url = server.URL
	return a
}

// kubeconfig writes the file by which a kubelet finds the server.
func (a *api) kubeconfig(t testing.TB, dir string) string {
	t.Helper()
	file := filepath.Join(dir, "kubeconfig")
	text, err := json.Marshal(object{
		"apiVersion": "v1", "kind": "Config", "current-context": "test",
		"clusters": []object{{"name": "test", "cluster": object{"server": a.url}}},
		"users":    []object{{"name": "test", "user": object{}}},
		"contexts": []object{{"name": "test", "context": object{"cluster": "test", "user": "test"}}},
	})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, text, 0o600))
	return file
}

func (a *api) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	var sent object
	if len(body) > 0 && json.Unmarshal(body, &sent) != nil {
		fail(w, http.StatusUnsupportedMediaType, "UnsupportedMediaType")
		return
	}
	switch dir, last := path.Split(req.URL.Path); {
	case strings.HasSuffix(req.URL.Path, "/pods/") || last == "pods" && req.Method == http.MethodGet:
		a.list(w, req, podList)
	case last == "nodes" && req.Method == http.MethodGet:
		a.list(w, req, nodeList)
	case last == "nodes":
		a.register(w, sent)
	case strings.Contains(req.URL.Path, "/nodes/"):
		a.serveNode(w, sent)
	case strings.HasSuffix(dir, "/pods/") || last == "status" && strings.Contains(dir, "/pods/"):
		a.servePod(w, req, sent)
	case req.Method == http.MethodGet && listKinds[last] != "":
		a.list(w, req, listKinds[last])
	case req.Method == http.MethodGet || sent == nil:
		fail(w, http.StatusNotFound, "NotFound")
	default: // a lease, an event: no test needs them
		reply(w, sent)
	}
}

const (
	nodeList = "NodeList"
	podList  = "PodList"
)

// listKinds are what a kubelet watches, of which there is nothing here.
var listKinds = map[string]string{
	"services": "ServiceList", "runtimeclasses": "RuntimeClassList", "csidrivers": "CSIDriverList",
}

func reply(w http.ResponseWriter, o object) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(o) // a kubelet that is gone needs none
}

func fail(w http.ResponseWriter, code int, reason string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	reply(w, object{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code})
}

// stamp gives an object the next version.
func (a *api) stamp(o object) object {
	a.version++
	metadata, _ := o["metadata"].(object)
	metadata["resourceVersion"] = strconv.Itoa(a.version)
	if metadata["uid"] == nil {
		metadata["uid"] = fmt.Sprintf("00000000-0000-0000-0000-%012d", a.version)
	}
	return o
}

func (a *api) register(w http.ResponseWriter, node object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.node = a.stamp(node)
	a.notify(nodeList, "ADDED", a.node)
	reply(w, a.node)
}

// serveNode serves the node, with the status that was sent last.
func (a *api) serveNode(w http.ResponseWriter, sent object) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.node == nil {
		fail(w, http.StatusNotFound, "NotFound")
		return
	}
	if sent != nil {
		mergeStatus(a.node, sent)
		a.notify(nodeList, "MODIFIED", a.stamp(a.node))
	}
	reply(w, a.node)
}

// mergeStatus puts the fields that were sent into the status of an object. The
// conditions are a list by type.
func mergeStatus(o, sent object) {
	from, _ := sent["status"].(object)
	if from == nil {
		return
	}
	to, _ := o["status"].(object)
	if to == nil {
		to = object{}
		o["status"] = to
	}
	for name, value := range from {
		if strings.HasPrefix(name, "$") {
			continue
		}
		if name == "conditions" {
			value = mergeConditions(to[name], value)
		}
		to[name] = value
	}
}

// mergeConditions puts the fields that were sent into the condition of the same type.
func mergeConditions(old, sent any) []any {
	conditions, _ := old.([]any)
	added, _ := sent.([]any)
	for _, c := range added {
		from := c.(object)
		i := slices.IndexFunc(conditions, func(c any) bool { return c.(object)["type"] == from["type"] })
		if i < 0 {
			conditions = append(conditions, c)
			continue
		}
		maps.Copy(conditions[i].(object), from)
	}
	return conditions
}

// condition returns a condition of the node, or nothing before the first status.
func (a *api) condition(kind string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	status, _ := a.node["status"].(object)
	conditions, _ := status["conditions"].([]any)
	for _, c := range conditions {
		if condition := c.(object); condition["type"] == kind {
			is, _ := condition["status"].(string)
			return is
		}
	}
	return ""
}

// put gives the kubelet a pod.
func (a *api) put(t testing.TB, name string, manifest []byte) {
	t.Helper()
	var o object
	require.NoError(t, json.Unmarshal(manifest, &o))
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pods[name] = a.stamp(o)
	a.notify(podList, "ADDED", o)
}

// remove asks the kubelet to end a pod, which then deletes it.
func (a *api) remove(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := a.pods[name]
	metadata := o["metadata"].(object)
	metadata["deletionTimestamp"], metadata["deletionGracePeriodSeconds"] = "2020-01-01T00:00:00Z", 1
	a.notify(podList, "MODIFIED", a.stamp(o))
}

// status returns a field of a pod's status.
func (a *api) status(name, field string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	status, _ := a.pods[name]["status"].(object)
	value, _ := status[field].(string)
	return value
}

func (a *api) has(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pods[name] != nil
}

func (a *api) servePod(w http.ResponseWriter, req *http.Request, sent object) {
	name := path.Base(strings.TrimSuffix(req.URL.Path, "/status"))
	a.mu.Lock()
	defer a.mu.Unlock()
	o := a.pods[name]
	switch {
	case o == nil:
		fail(w, http.StatusNotFound, "NotFound")
		return
	case req.Method == http.MethodDelete:
		delete(a.pods, name)
		a.notify(podList, "DELETED", a.stamp(o))
	case req.Method == http.MethodPatch:
		mergeStatus(o, sent)
		a.notify(podList, "MODIFIED", a.stamp(o))
	}
	reply(w, o)
}

// notify sends an event to the watchers of a kind of list.
func (a *api) notify(kind, what string, o object) {
	event, err := json.Marshal(object{"type": what, "object": o})
	if err != nil {
		return
	}
	for watcher, watches := range a.watchers {
		if watches == kind {
			watcher <- event
		}
	}
}

// list serves a list or, to those who have it, what happens to it.
func (a *api) list(w http.ResponseWriter, req *http.Request, kind string) {
	query := req.URL.Query()
	if query.Get("sendInitialEvents") != "" {
		fail(w, http.StatusUnprocessableEntity, "Invalid")
		return
	}
	if query.Get("watch") != "" {
		a.watch(w, req, kind)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	group := "v1"
	if rest, ok := strings.CutPrefix(req.URL.Path, "/apis/"); ok {
		group = path.Dir(rest)
	}
	reply(w, object{"kind": kind, "apiVersion": group, "metadata": object{"resourceVersion": strconv.Itoa(a.version)}, "items": a.items(kind)})
}

// items returns what there is of a kind.
func (a *api) items(kind string) []object {
	items := []object{}
	switch {
	case kind == nodeList && a.node != nil:
		items = append(items, a.node)
	case kind == podList:
		items = slices.AppendSeq(items, maps.Values(a.pods))
	}
	return items
}

// watch sends events until the kubelet is gone.
func (a *api) watch(w http.ResponseWriter, req *http.Request, kind string) {
	events := make(chan []byte, 1000)
	a.addWatcher(events, kind, req.URL.Query().Get("resourceVersion"))
	defer a.removeWatcher(events)
	w.Header().Set("Content-Type", "application/json")
	control := http.NewResponseController(w)
	_ = control.Flush() // the write below fails as well
	for {
		select {
		case <-req.Context().Done():
			return
		case event := <-events:
			if _, err := w.Write(append(event, '\n')); err != nil || control.Flush() != nil {
				return
			}
		}
	}
}

// addWatcher sends the events of a kind to a watcher, beginning with what is newer than
// the version it knows.
func (a *api) addWatcher(events chan []byte, kind, version string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	known, _ := strconv.Atoi(version)
	for _, o := range a.items(kind) {
		has, _ := strconv.Atoi(o["metadata"].(object)["resourceVersion"].(string))
		if event, err := json.Marshal(object{"type": "ADDED", "object": o}); err == nil && has > known {
			events <- event
		}
	}
	a.watchers[events] = kind
}

func (a *api) removeWatcher(events chan []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.watchers, events)
}
