// Loads an image with thread-local data, and uses it from many threads at once.
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>

enum { THREADS = 16 };

static void *image;
static int64_t (*bump)(void), (*zeros)(void);
static int64_t *places[THREADS];
static int failures;
static pthread_barrier_t barrier;

static void *work(void *number) {
    int64_t *place = dlsym(image, "counter");
    int wrong = !place || *place != 40 || bump() != 41 || bump() != 42 || *place != 42 || zeros() != 0;
    places[(intptr_t)number] = place;
    // All threads are alive here, so no two copies are in one place.
    pthread_barrier_wait(&barrier);
    if (wrong || bump() != 43) __atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);
    return NULL;
}

int main(int argc, char **argv) {
    // Twice, so that the image's data goes while this thread has a copy.
    for (int round = 0; round < 2; round++) {
        if (argc != 2 || !(image = dlopen(argv[1], RTLD_NOW))) {
            puts(argc == 2 ? dlerror() : "usage: threads IMAGE");
            return 2;
        }
        bump = (int64_t (*)(void))dlsym(image, "bump");
        zeros = (int64_t (*)(void))dlsym(image, "zeros_and_alignment");
        pthread_barrier_init(&barrier, NULL, THREADS);
        pthread_t threads[THREADS];
        for (intptr_t i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, work, (void *)i);
        for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
        for (int i = 0; i < THREADS; i++)
            for (int j = 0; j < i; j++) failures += places[i] == places[j];
        failures += bump() != 41;
        dlclose(image);
    }
    printf("%d failures\n", failures);
    return failures != 0;
}
