package registry

import (
	"net/http"
	"strings"
)

// Named is an http.Handler that serves several images, each under its names. A name is
// a repository with a tag, as in library/busybox:latest.
type Named map[string]*Registry

// ServeHTTP serves a manifest by its tag or its digest, and any image's blobs from any
// repository.
func (n Named) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	path, isAPI := strings.CutPrefix(req.URL.Path, "/v2/")
	if isAPI && path == "" {
		w.WriteHeader(http.StatusOK) // this is a registry
		return
	}
	if r := n.find(path); r != nil {
		r.ServeHTTP(w, req)
		return
	}
	http.NotFound(w, req)
}

func (n Named) find(path string) *Registry {
	if repository, reference, ok := cutLast(path, "/manifests/"); ok {
		if r := n[repository+":"+reference]; r != nil {
			return r
		}
		for name, r := range n {
			if r.image.digest == reference && strings.HasPrefix(name, repository+":") {
				return r
			}
		}
	}
	if _, digest, ok := cutLast(path, "/blobs/"); ok {
		for _, r := range n {
			if r.blobs[digest] != nil {
				return r
			}
		}
	}
	return nil
}

func cutLast(s, separator string) (before, after string, found bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}
