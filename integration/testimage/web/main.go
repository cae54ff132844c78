// Command web is the web server of the integration tests' images. What it prints and
// the file with its process ID are what tests of containers expect of the web servers
// nginx and httpd.
package main

import (
	"fmt"
	"net/http"
	"os"
	"time"
)

const pidFile = "/var/run/nginx.pid"

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: web ADDRESS")
		os.Exit(2)
	}
	if err := serve(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(address string) error {
	if err := os.WriteFile(pidFile, fmt.Appendln(nil, os.Getpid()), 0o644); err != nil {
		return err
	}
	fmt.Println("httpd serves at", address)
	server := http.Server{Addr: address, ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(page)}
	return server.ListenAndServe()
}

func page(w http.ResponseWriter, _ *http.Request) {
	_, _ = fmt.Fprintln(w, "a page") // a client that is gone needs none
}
